"""Chosen radii on the demo's model, which has learned to look: prediction against measurement."""

from __future__ import annotations

import functools

import pytest
import torch

BLOCKS = [("double", 0), *(("single", index) for index in range(4))]
RADII = (4, 8)
EDGE = 48  # latent pixels: 24 x 24 tokens, the size that the model was trained at
# One picture is not typical of others: it orders the blocks of the rest at 0.7 to 1.0.
PROBED = [
    (f"a photograph of {what}", 123 + index)
    for index, what in enumerate(("galaxies", "mountains", "a brook", "leaves"))
]
LEVELS = 4
HELD_OUT = [
    ("a meadow of dandelions in the evening", 7_004),
    ("water of a brook among stones", 7_002),
    ("a deep field of galaxies", 7_000),
]
AT = 0.575  # of the schedule, sigma 0.7


@pytest.fixture(scope="module")
def model(host):
    from demo.nodes.network import load_model

    return load_model()


@pytest.fixture(scope="module")
def sample(model, product):
    """A picture that the model has painted in eight steps: prompt and seed -> what is probed."""
    import comfy.sample

    from demo.nodes.text import DemoCLIP

    make = product("comfyui.probe.sample").Sample
    clip = DemoCLIP()

    @functools.cache
    def painted(prompt, seed):
        cond = clip.encode_from_tokens_scheduled(clip.tokenize(prompt), add_dict={"guidance": 3.5})
        noise = torch.randn(1, 16, EDGE, EDGE, generator=torch.Generator().manual_seed(seed))
        with torch.inference_mode():
            latent = comfy.sample.sample(
                *(model, noise, 8, 1.0, "euler", "simple", cond, cond, torch.zeros_like(noise)),
                disable_pbar=True,
                seed=seed,
            )
        return make(cond, {"samples": latent}, AT, seed)

    return painted


@pytest.fixture(scope="module")
def found(model, sample, product):
    """What a probe of several pictures at several noise levels has measured."""
    samples = [level for given in PROBED for level in sample(*given).spread(LEVELS)]
    with torch.inference_mode():
        return product("comfyui.probe.locality").probe_windows(model, samples, 512 * len(PROBED))


@pytest.fixture(scope="module")
def velocity_error(model, sample, product):
    """The mean squared error of the velocity with a radius per block, on held-out pictures."""
    denoise_once = product("comfyui.probe.sample").denoise_once
    with_window = product("comfyui.core.patch").with_window
    settings = product("comfyui.core.settings").WindowSettings

    @functools.cache
    def full(prompt, seed):
        return denoise_once(model, sample(prompt, seed))

    @torch.inference_mode()
    def error(radii):
        everything = dict.fromkeys(BLOCKS, EDGE)  # of blocks that are not named
        windowed = with_window(model, settings(EDGE, radii={**everything, **radii}))
        changes = [denoise_once(windowed, sample(*given)) - full(*given) for given in HELD_OUT]
        return float(torch.stack(changes).square().mean())

    return error


def ranks(values):
    return torch.tensor(values).argsort().argsort().double()


def rank_correlation(one, other):
    return float(torch.corrcoef(torch.stack([ranks(one), ranks(other)]))[0, 1])


def test_predicted_and_measured_errors_of_single_blocks_have_one_order(found, velocity_error):
    predicted = [[found[block].cost.error(radius) for radius in RADII] for block in BLOCKS]
    measured = [[velocity_error({block: radius}) for radius in RADII] for block in BLOCKS]
    assert max(row[0] for row in measured) > 20 * min(row[0] for row in measured)
    of_all = [torch.tensor(errors).flatten().tolist() for errors in (predicted, measured)]
    assert rank_correlation(*of_all) > 0.9
    of_blocks = [torch.tensor(errors).log().mean(1).tolist() for errors in (predicted, measured)]
    assert round(rank_correlation(*of_blocks), 6) >= 0.8


@pytest.mark.parametrize(("budget", "most"), [(0.25, 0.95), (0.5, 0.5)])
def test_chosen_radii_beat_one_radius_of_the_same_work(
    budget, most, found, velocity_error, product
):
    choose = product("locality.choose").choose_radii
    choice = choose({block: each.cost for block, each in found.items()}, budget)
    assert 0.9 * budget <= choice.share <= budget
    one = velocity_error(dict.fromkeys(BLOCKS, choice.one_radius))
    assert velocity_error(dict(choice.radii)) <= most * one
