"""What a window keeps with every architecture: order, whole grid, disc, calls of others."""

from __future__ import annotations

import importlib.util
from collections import Counter

import pytest
import torch

from .zoo import ENTRIES, UNSEEN
from .zoo_calls import changed_rows, expected, in_float64, listed
from .zoo_models import (
    COLUMNS,
    ROWS,
    conditioning,
    latent,
    methods,
    present,
    reference_values,
    sampled,
)

WHOLE = 64
"""A radius that covers the grid."""
RADIUS = 3
CELL = (4, 3)
"""The token whose latent is changed."""
CASES = [
    pytest.param(name, method, id=f"{name} {method}".strip())
    for name in present()
    for method in (None, *methods(ENTRIES[name]))
]


def changed(entry, noise):
    """Return noise with one changed value, the last one of a token."""
    noise = noise.clone()
    y, x = (cell * entry.patch + entry.patch - 1 for cell in CELL)
    noise[..., y, x] += 1
    return noise


def assert_same(model, window, noise, *prompts):
    """Compare a window over the grid with the host, and return what the host has.

    Two steps at CFG 4 make much of a rounding, more in one model than in another. How much, the
    host tells whose attention is computed in float64. The window attends in two parts, which merge:
    it rounds three times where the host rounds once.
    """
    full, same, exact = (
        sampled(each, noise, *prompts, steps=2) for each in (model, window, in_float64(model))
    )
    largest = max(full.abs().max(), model.model.model_sampling.sigma_max * noise.abs().max())
    rounding = (full - exact).abs().max() + torch.finfo(torch.float32).eps * largest
    assert rounding <= 1e-5 * largest
    assert (same - exact).abs().max() <= 3 * rounding
    return full


def prompt(entry, method=None, tokens=9):
    values = {} if method is None else reference_values(entry, method)
    return conditioning(entry, tokens, **values)


def pair(entry, model, recorded, method=None):
    """Return the calls of one model call, each beside the same one with a changed latent cell."""
    noise = latent(entry)
    runs = [
        recorded(entry, model, lambda seen, x=x: sampled(seen, x, prompt(entry, method)))
        for x in (noise, changed(entry, noise))
    ]
    return list(zip(*runs, strict=True))


def test_every_family_has_a_model_that_the_host_knows(product):
    """A host that gets the class of a family without an entry shall fail here: write one."""
    families = product("comfyui.families").FAMILIES
    assert {entry.family for entry in ENTRIES.values()} | UNSEEN.keys() == {
        each.data.key for each in families
    }
    assert not any(importlib.util.find_spec(package) for package in UNSEEN.values())


@pytest.mark.parametrize("name", present())
def test_the_model_is_of_its_family(name, zoo_model, product):
    assert product("comfyui.families").require_family(zoo_model(name)).data.key == (
        ENTRIES[name].family
    )


@pytest.mark.parametrize("name", present())
def test_the_host_has_every_class_that_it_should_have(name, host):
    import comfy.supported_models

    assert hasattr(comfy.supported_models, ENTRIES[name].config)


@pytest.mark.parametrize(("name", "method"), CASES)
def test_the_row_of_a_changed_latent_cell_is_where_the_layout_has_it(
    name, method, zoo_model, windowed, recorded
):
    """The host alone gives the row: of the first queries that change, before tokens have mixed."""
    entry, model = ENTRIES[name], zoo_model(name)
    first = next(
        rows
        for before, after in pair(entry, model, recorded, method)
        if (rows := changed_rows(before.q, after.q))
    )
    calls = pair(entry, windowed(model, WHOLE), recorded, method)
    local = next(before for before, _ in calls if before.layout is not None)
    assert (local.layout.height, local.layout.width) == (ROWS, COLUMNS)
    assert first == [local.image.start + CELL[0] * COLUMNS + CELL[1]]


@pytest.mark.parametrize(("name", "method"), CASES)
def test_behind_a_refiner_the_picture_is_where_the_layout_has_it(
    name, method, zoo_model, windowed, recorded
):
    """Tokens of the picture have met there, and text has not met them yet."""
    entry = ENTRIES[name]
    calls = pair(entry, windowed(zoo_model(name), WHOLE), recorded, method)
    local = [both for both in calls if both[0].layout is not None]
    refiner = local[0][0]
    joint = next((both for both in local if both[0].block[0] != "refiner"), local[0])
    if joint is local[0]:
        assert "refiner" not in entry.blocks
        return
    rows = changed_rows(joint[0].q, joint[1].q)
    first = joint[0].image.start - refiner.image.start  # of what the refiner had as a whole
    assert rows == list(range(first, first + refiner.q.shape[1]))


@pytest.mark.parametrize("name", present())
def test_a_window_over_the_grid_equals_the_hosts_attention(name, zoo_model, windowed):
    """Odd sizes, two pictures, prompts of different length."""
    entry, model = ENTRIES[name], zoo_model(name)
    noise = latent(entry, batch=2, odd=True)
    prompts = conditioning(entry, 9), conditioning(entry, 5, seed=3)
    full = assert_same(model, windowed(model, WHOLE), noise, *prompts)
    local = sampled(windowed(model, RADIUS), noise, *prompts, steps=2)
    assert (local - full).abs().max() > 1e-3 * full.abs().max()


@pytest.mark.parametrize("name", present())
def test_in_the_first_block_exactly_the_disc_sees_a_changed_cell(
    name, zoo_model, windowed, recorded
):
    entry = ENTRIES[name]
    calls = pair(entry, windowed(zoo_model(name), RADIUS), recorded)
    before, after = next(both for both in calls if both[0].layout is not None)
    disc = [
        before.image.start + y * COLUMNS + x
        for y in range(ROWS)
        for x in range(COLUMNS)
        if (y - CELL[0]) ** 2 + (x - CELL[1]) ** 2 < RADIUS**2
    ]
    rows = changed_rows(before.out, after.out)
    assert [row for row in rows if row in before.image] == disc
    everyone = set(range(before.q.shape[1])) - set(before.image)
    assert set(rows) - set(disc) == everyone


@pytest.mark.parametrize("tokens", [ROWS * COLUMNS, ROWS * COLUMNS + 15])
@pytest.mark.parametrize("name", present())
def test_calls_that_are_not_the_pictures_are_the_hosts(name, tokens, zoo_model, windowed, recorded):
    """Text as long as the grid, and longer: refiners of the text, and cross-attention."""
    entry, model = ENTRIES[name], zoo_model(name)
    noise, text = latent(entry), prompt(entry, tokens=tokens)

    def run(model):
        return recorded(entry, model, lambda seen: sampled(seen, noise, text))

    hosts, ours = run(model), run(windowed(model, RADIUS))
    assert [(call.block, call.nth) for call in ours] == [(call.block, call.nth) for call in hosts]
    assert [call.layout is not None for call in ours] == [expected(entry, call) for call in ours]
    first = next(index for index, call in enumerate(ours) if call.layout is not None)
    for host, our in zip(hosts[:first], ours[:first], strict=True):
        assert our.out.equal(host.out)
    assert_same(model, windowed(model, WHOLE), noise, text)


@pytest.mark.parametrize("name", present())
def test_every_block_attends_through_the_pack_and_is_named(
    name, zoo_model, windowed, recorded, reports, product
):
    entry, model = ENTRIES[name], zoo_model(name)
    noise = latent(entry)
    prompts = conditioning(entry, 9), conditioning(entry, 5, seed=3)
    windows = windowed(model, RADIUS)
    calls = recorded(entry, windows, lambda seen: sampled(seen, noise, *prompts))
    counts = product("comfyui.core.blocks").block_counts(windows)
    blocks = Counter(kind for kind, _ in listed(entry, model))
    assert counts == blocks | dict.fromkeys(entry.twice, entry.blocks_twice)
    text = "\n".join((*reports[-1].lines(), *reports[-1].notes, *reports[-1].warned))
    assert "sent CLEAR no attention" not in text
    local = Counter(call.block for call in calls if call.layout is not None)
    assert local.keys() == listed(entry, model).keys()
    runs = min(local.values())
    assert runs in (1, 2)  # the host runs both prompts at once where they are padded to one length
    assert local.total() == runs * sum(counts.values())
    of_windows = sum(n for path, n in reports[-1].calls.items() if path.radius is not None)
    assert of_windows == local.total()
