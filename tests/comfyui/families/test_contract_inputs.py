"""What a window keeps with references, padded text, frames and sequences that are too short."""

from __future__ import annotations

import pytest
import torch

from .test_contract import RADIUS, WHOLE, assert_same
from .zoo import ENTRIES, MIDDLE, NEVER, words
from .zoo_models import (
    COLUMNS,
    ROWS,
    conditioning,
    host_version,
    latent,
    methods,
    present,
    randoms,
    reference_values,
    sampled,
)

REFERENCES = [
    pytest.param(name, method, id=f"{name} {method}".strip())
    for name in present()
    for method in methods(ENTRIES[name])
]
VERSION = host_version()
MASKED = [name for name in present() if ENTRIES[name].masked_since != NEVER]
FRAMES = [
    name for name in present() if ENTRIES[name].frames and ENTRIES[name].frames_since <= VERSION
]
UNASKED = [
    name
    for name in present()
    if "" not in methods(ENTRIES[name]) and ENTRIES[name].family not in ("lumina2", "wan", "wan_5b")
]
"""Models without a default method for references; the host itself fails in the two left out."""
DECLINED = [
    ("hidream", "concat_latent_image", "HiDream-E1 sets its reference picture beside each row"),
    ("hunyuan_video", "ref_latent", "further frames lie beside the picture"),
    ("wan", "reference_latents", "further frames lie beside the picture"),
]
"""Model, the reference's key in conditioning, what the report says."""
CUT = [name for name in present() if ENTRIES[name].extras is not words]
"""HiDream-O1's positions are made for a picture of one size, before the network is called."""
HIDDEN = 4
"""Words of a prompt that its mask hides."""


def text_of(report):
    return "\n".join((*report.lines(), *report.notes, *report.warned))


@pytest.mark.parametrize(("name", "method"), REFERENCES)
def test_with_references_a_window_over_the_grid_equals_the_hosts_attention(
    name, method, zoo_model, windowed, recorded
):
    """Pictures of another size in the positive prompt, none in the negative one."""
    entry, model = ENTRIES[name], zoo_model(name)
    noise = latent(entry, batch=2, odd=True)
    values = reference_values(entry, method)
    prompts = conditioning(entry, 9, **values), conditioning(entry, 5, seed=3)
    full = assert_same(model, windowed(model, WHOLE), noise, *prompts)
    plain = sampled(model, noise, conditioning(entry, 9), prompts[1], steps=2)
    assert (plain - full).abs().max() > 1e-3 * full.abs().max()
    calls = recorded(entry, windowed(model, RADIUS), lambda seen: sampled(seen, noise, prompts[0]))
    beyond = {call.layout.text + call.layout.extra for call in calls if call.layout is not None}
    assert max(beyond) >= 3 * 4  # tokens of the references, which everything sees


@pytest.mark.parametrize("name", UNASKED)
def test_references_without_a_method_count_where_the_host_looks_at_them(name, zoo_model, windowed):
    entry, model = ENTRIES[name], zoo_model(name)
    noise = latent(entry)
    plain = conditioning(entry, 9)
    text = conditioning(entry, 9, **reference_values(entry, ""))
    full = assert_same(model, windowed(model, WHOLE), noise, text)
    ignored = full.equal(sampled(model, noise, plain, steps=2))
    local = windowed(model, RADIUS)
    one, other = (sampled(local, noise, each, steps=2) for each in (text, plain))
    assert one.equal(other) == ignored


@pytest.mark.parametrize("name", ["flux2", "qwen_image"])
def test_keys_of_references_that_come_from_a_cache_are_seen_too(name, zoo_model, windowed, reports):
    """From the second step on, queries are text and picture, keys the references' too."""
    from comfy_extras import nodes_flux

    if VERSION < MIDDLE:
        assert not hasattr(nodes_flux, "FluxKVCache")
        return
    entry, model = ENTRIES[name], zoo_model(name)
    noise = latent(entry)
    text = conditioning(entry, 9, reference_latents=[entry.reference(3, 4, randoms(5))])

    def run(window):
        (cached,) = nodes_flux.FluxKVCache.execute(model).args
        return sampled(cached if window is None else windowed(cached, window), noise, text, steps=2)

    full = run(None)
    assert (run(WHOLE) - full).abs().max() <= 3e-6 * full.abs().max()
    assert (run(RADIUS) - full).abs().max() > 1e-3 * full.abs().max()
    assert all(path.radius for path in reports[-1].calls)
    assert len(reports[-1].calls) == 2


@pytest.mark.parametrize(("name", "key", "why"), DECLINED)
def test_references_among_the_rows_of_the_grid_stay_dense_and_the_report_says_so(
    name, key, why, zoo_model, windowed, reports
):
    entry, model = ENTRIES[name], zoo_model(name)
    noise, other = latent(entry), entry.reference(ROWS, COLUMNS, randoms(5))
    text = conditioning(entry, 9, **{key: [other] if key == "reference_latents" else other})
    full = sampled(model, noise, text)
    assert not full.equal(sampled(model, noise, conditioning(entry, 9)))
    assert sampled(windowed(model, RADIUS), noise, text).equal(full)
    assert why in text_of(reports[-1])


def masked_prompt(entry, tokens, seed=2, other=None):
    """Return a prompt whose last words are hidden, with other random words there or not."""
    mask = torch.ones(1, tokens, dtype=torch.long)
    mask[:, -HIDDEN:] = 0
    ((text, values),) = conditioning(entry, tokens, seed, attention_mask=mask)
    if other is not None:
        text[:, -HIDDEN:] = torch.randn(1, HIDDEN, text.shape[2], generator=randoms(other))
    return [[text, values]]


@pytest.mark.parametrize("name", MASKED)
def test_with_padded_text_a_window_over_the_grid_equals_the_hosts_attention(
    name, zoo_model, windowed
):
    entry, model = ENTRIES[name], zoo_model(name)
    noise = latent(entry, batch=2, odd=True)
    prompts = masked_prompt(entry, 13), masked_prompt(entry, 9, seed=3)
    full = assert_same(model, windowed(model, WHOLE), noise, *prompts)
    bare = [[[text, values | {"attention_mask": None}]] for ((text, values),) in prompts]
    reaches = entry.masked_since <= VERSION
    assert sampled(model, noise, *bare, steps=2).equal(full) != reaches


@pytest.mark.parametrize("radius", [RADIUS, WHOLE])
@pytest.mark.parametrize("name", MASKED)
def test_padded_text_has_no_effect(name, radius, zoo_model, windowed):
    """Where the host itself hands the mask to the attention."""
    entry, model = ENTRIES[name], windowed(zoo_model(name), radius)
    noise = latent(entry, batch=2)
    one, other = (
        sampled(model, noise, masked_prompt(entry, 13, other=seed), steps=2) for seed in (7, 8)
    )
    assert one.equal(other) == (entry.masked_since <= VERSION)


@pytest.mark.parametrize("name", FRAMES)
def test_a_picture_of_several_frames_stays_dense_and_the_report_says_so(
    name, zoo_model, windowed, reports
):
    entry, model = ENTRIES[name], zoo_model(name)
    noise, prompt = latent(entry, frames=2), conditioning(entry, 9)
    full = sampled(model, noise, prompt)
    assert sampled(windowed(model, RADIUS), noise, prompt).equal(full)
    assert "frames" in text_of(reports[-1])
    assert not any(path.radius for path in reports[-1].calls)


@pytest.mark.parametrize("name", CUT)
def test_a_sequence_that_is_too_short_for_its_grid_stays_dense_with_a_reason(
    name, zoo_model, windowed, reports
):
    """Another node lets the network see the first row of tokens only."""
    import comfy.patcher_extension

    entry = ENTRIES[name]
    noise, prompt = latent(entry, rows=32, columns=20), conditioning(entry, 9)

    def first_row(executor, x, t, beside, *args, **kwargs):
        first, out = slice(entry.patch), torch.zeros_like(x)
        beside = None if beside is None else beside[..., first, :]
        out[..., first, :] = executor(x[..., first, :], t, beside, *args, **kwargs)
        return out

    def cut(model):
        comfy.patcher_extension.add_wrapper_with_key(
            comfy.patcher_extension.WrappersMP.APPLY_MODEL,
            *("first row", first_row, model.model_options),
            is_model_options=True,
        )
        return model

    full = sampled(cut(zoo_model(name)), noise, prompt)
    assert sampled(cut(windowed(zoo_model(name), RADIUS)), noise, prompt).equal(full)
    assert not any(path.radius for path in reports[-1].calls)
    assert "grid" in text_of(reports[-1])
