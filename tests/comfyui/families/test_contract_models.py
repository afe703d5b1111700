"""What a window keeps of every architecture's model: LoRAs, and the model that it was made from."""

from __future__ import annotations

import pytest
import torch

from .test_contract import RADIUS
from .zoo import ENTRIES
from .zoo_calls import listed
from .zoo_models import conditioning, latent, present, randoms, sampled


def with_lora(entry, model):
    """Return a clone with low-rank changes of all matrices of the first block of each kind."""
    model, random, patches = model.clone(), randoms(6), {}
    for (kind, index), block in listed(entry, model).items():
        if index:
            continue
        for name, weight in block.named_parameters():
            if weight.ndim != 2:
                continue
            rows, columns = weight.shape
            up = torch.randn(rows, 2, generator=random)
            down = torch.randn(2, columns, generator=random) / columns**0.5
            key = f"diffusion_model.{entry.blocks[kind]}.{index}.{name}"
            patches[key] = ("diff", (0.2 * up @ down,))
    assert set(model.add_patches(patches)) == patches.keys()
    return model


@pytest.mark.parametrize("name", present())
def test_a_lora_before_and_after_the_window_is_the_same(name, zoo_model, windowed):
    entry, model = ENTRIES[name], zoo_model(name)
    noise, prompt = latent(entry), conditioning(entry, 9)
    before = sampled(windowed(with_lora(entry, model), RADIUS), noise, prompt)
    after = sampled(with_lora(entry, windowed(model, RADIUS)), noise, prompt)
    assert before.equal(after)
    without = sampled(windowed(model, RADIUS), noise, prompt)
    assert (before - without).abs().max() > 1e-3 * without.abs().max()


@pytest.mark.parametrize("name", present())
def test_the_model_that_a_window_is_made_from_stays_as_it_is(name, zoo_model, windowed):
    """Before, between and after runs of the window."""
    entry, model = ENTRIES[name], zoo_model(name)
    noise, prompt = latent(entry), conditioning(entry, 9)
    before = sampled(model, noise, prompt)
    local = windowed(model, RADIUS)
    assert sampled(model, noise, prompt).equal(before)
    assert not sampled(local, noise, prompt).equal(before)
    assert sampled(model, noise, prompt).equal(before)


@pytest.mark.parametrize(
    ("name", "refused", "sentence"),
    [
        ("z_image", "NextDiTPixelSpace", "they paint pixels in blocks that CLEAR does not know"),
        ("qwen_image", "NunchakuQwenImageTransformer2DModel", "cannot be combined with nunchaku"),
    ],
)
def test_a_refused_class_that_derives_from_a_taken_one_is_refused(
    name, refused, sentence, zoo_model, windowed
):
    """The host's own for pictures of pixels, and nunchaku's."""
    model = zoo_model(name)
    network = model.model.diffusion_model
    derived = type(refused, (type(network),), {})
    other = derived.__new__(derived)
    other.__dict__.update(network.__dict__)
    model.add_object_patch("diffusion_model", other)
    with pytest.raises(ValueError, match=sentence):
        windowed(model, RADIUS)
