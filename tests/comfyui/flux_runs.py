"""What the tests of the nodes on FLUX share: inputs, runs, and who sees whom written by hand."""

from __future__ import annotations

import torch
import torch.nn.functional as F

OVERRIDE = "optimized_attention_override"
RADIUS = 4


def inputs(height=23, width=18, text=40, batch=1, seed=0):
    """Return the arguments of `run`; the latent is odd in both directions by default."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator)

    return {
        "x": random(batch, 16, height, width),
        "timestep": torch.linspace(0.9, 0.5, batch),
        "context": random(batch, text, 64),
        "y": random(batch, 32),
        "guidance": torch.full((batch,), 3.5),
    }


def disc_bias(text, height, width, references=0, radius=RADIUS):
    """Return who sees whom as an additive mask, written down a second time on purpose."""
    tokens, image = text + height * width + references, slice(text, text + height * width)
    cells = [(y, x) for y in range(height) for x in range(width)]
    near = [[(y - v) ** 2 + (x - u) ** 2 < radius * radius for v, u in cells] for y, x in cells]
    sees = torch.ones(tokens, tokens, dtype=torch.bool)
    sees[image, image] = torch.tensor(near)
    return torch.zeros(tokens, tokens).masked_fill(~sees, -torch.inf)


def dense_override(bias):
    """Return an override that computes masked attention with torch alone."""

    def override(func, q, k, v, heads, mask=None, **kwargs):
        total = bias if mask is None else bias + mask.unsqueeze(1)  # [B, L, L] for all heads
        return F.scaled_dot_product_attention(q, k, v, attn_mask=total).transpose(1, 2).flatten(2)

    return override


def with_override(model, override):
    model = model.clone()
    model.model_options["transformer_options"][OVERRIDE] = override
    return model


def window_by_hand(height, width, references=0, radius=RADIUS):
    """Return an override with the window of a grid, for prompts of any length."""
    biases = {}

    def override(func, q, k, v, heads, **kwargs):
        text = q.shape[2] - height * width - references
        if text not in biases:
            biases[text] = disc_bias(text, height, width, references, radius)
        return dense_override(biases[text])(func, q, k, v, heads, **kwargs)

    return override


def by_length(biases):
    """Return an override with an additive mask for each length of a sequence."""

    def override(func, q, k, v, heads, **kwargs):
        return dense_override(biases[q.shape[2]])(func, q, k, v, heads, **kwargs)

    return override


def conditioning(tokens, seed, **values):
    """Return a CONDITIONING of random text."""
    generator = torch.Generator().manual_seed(seed)
    cond = torch.randn(1, tokens, 64, generator=generator)
    pooled = torch.randn(1, 32, generator=generator)
    return [[cond, {"pooled_output": pooled, "guidance": 3.5, **values}]]


def sampled(
    model,
    size,
    steps=2,
    cfg=2.0,
    batch=1,
    positive=None,
    negative=None,
    mask=None,
    sampler="euler",
):
    """Sample a few steps with CFG; the two prompts differ in length.

    Args:
        model: a MODEL.
        size: of the latent, ``(height, width)``, or with what comes in front of them.
        mask: what to paint anew, ``[1, 1, height, width]``, or None.
    """
    import comfy.samplers

    noise = torch.randn(batch, 16, *size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return comfy.samplers.sample(
            model,
            noise,
            positive or conditioning(40, 2),
            negative or conditioning(56, 3),
            cfg,
            torch.device("cpu"),
            comfy.samplers.sampler_object(sampler),
            torch.linspace(1.0, 0.0, steps + 1),
            latent_image=torch.zeros_like(noise),
            denoise_mask=mask,
            model_options=model.model_options,
            disable_pbar=True,
            seed=4,
        )


def recorded_ids(model, run, arguments):
    """Return the position ids that the host's own embedder turns into rotations."""
    seen = []
    embedder = model.model.diffusion_model.pe_embedder
    handle = embedder.register_forward_hook(lambda _, args, out: seen.append(args[0]))
    try:
        run(model, **arguments)
    finally:
        handle.remove()
    (ids,) = seen
    return ids
