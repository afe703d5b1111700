"""Rotary positions that are the same again after one turn around the picture."""

from __future__ import annotations

import math

import pytest
import torch

from clear_attention.comfyui.core.geometry import Geometry
from clear_attention.comfyui.positions.periodic import PeriodicEmbedder

AXES = (16, 56, 56)
TEXT = 5
EPS = torch.finfo(torch.float32).eps
# Angles come from entries of rotations and go back into them, each rounded a few times; what is
# left over of a turn is a sum of four of them.
ROUNDING = 16 * EPS
SIZES = {"wide": (7, 24), "tall": (33, 6), "two": (2, 2), "large": (4, 300)}
# As the host's own node for it sets them: spacing of rows and columns, and where they start.
SPACINGS = {
    "plain": (1.0, 1.0, 0.0, 0.0),
    "scaled": (0.5, 2.3, 0.0, 0.0),
    "moved": (1.0, 1.0, -40.0, 9.5),
}


@pytest.fixture(scope="session")
def embedder(host):
    """Make the host's embedder."""
    from comfy.ldm.flux.layers import EmbedND

    return lambda theta=10000: EmbedND(dim=sum(AXES), theta=theta, axes_dim=list(AXES))


def grid_ids(height, width, spacing="plain"):
    scale_y, scale_x, shift_y, shift_x = SPACINGS[spacing]
    y, x = shift_y + scale_y * torch.arange(height), shift_x + scale_x * torch.arange(width)
    return torch.cat([torch.zeros(TEXT, 3), torch.cartesian_prod(torch.zeros(1), y, x)])[None]


def periodic(inner, geometry, wrap_height=True, wrap_width=True):
    outer = PeriodicEmbedder(inner, (1, 2), wrap_height=wrap_height, wrap_width=wrap_width)
    outer.geometry = geometry
    return outer


def angles(rotations, geometry):
    """Return the angle of each pair of each token of the grid, ``[height, width, pairs]``."""
    turned = torch.atan2(rotations[0, 0, :, :, 1, 0], rotations[0, 0, :, :, 0, 0])
    layout = geometry.layout(turned.shape[0])
    return turned[layout.image_slice].unflatten(0, (geometry.height, geometry.width)).double()


def near_whole_turns(angle):
    return (angle / math.tau - (angle / math.tau).round()).abs() * math.tau


@pytest.mark.parametrize("theta", [10000, 100000], ids=["base", "ntk"])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("size", SIZES)
def test_the_last_token_turns_into_the_first_as_any_into_the_next(size, spacing, theta, embedder):
    geometry = Geometry(*SIZES[size])
    ids = grid_ids(*SIZES[size], spacing)
    found = angles(periodic(embedder(theta), geometry)(ids), geometry)
    rounding = ROUNDING + 2 * EPS * float(ids.abs().max())  # that of the ids themselves
    for axis in (0, 1):
        steps = found.roll(-1, axis) - found
        first = steps.narrow(axis, 0, 1)
        assert near_whole_turns(steps - first).max() <= rounding
        whole = first * SIZES[size][axis] / math.tau  # turns around the picture
        assert (whole - whole.round()).abs().max() <= rounding * SIZES[size][axis]


@pytest.mark.parametrize("size", SIZES)
def test_each_frequency_becomes_the_nearest_that_fits(size, embedder):
    geometry, ids = Geometry(*SIZES[size]), grid_ids(*SIZES[size])
    after = angles(periodic(embedder(), geometry)(ids), geometry)
    frequencies = [10000 ** (-2 * pair / dim) for dim in AXES[1:] for pair in range(dim // 2)]
    for axis, length in enumerate(SIZES[size]):
        step = (after.narrow(axis, 1, 1) - after.narrow(axis, 0, 1))[0, 0]
        of_axis = slice(8, 36) if axis == 0 else slice(36, 64)
        for found, true in zip(step[of_axis], frequencies[:28], strict=True):
            harmonic = round(true * length / math.tau) * math.tau / length
            assert near_whole_turns(found - harmonic) <= ROUNDING
        others = torch.ones(64, dtype=torch.bool)
        others[of_axis] = False
        assert (step[others] == 0).all()


@pytest.mark.parametrize("size", SIZES)
def test_the_middle_keeps_its_place_and_nothing_turns_by_more_than_a_quarter(size, embedder):
    height, width = SIZES[size]
    geometry, ids = Geometry(height, width), grid_ids(height, width)
    before = embedder()(ids)
    after = periodic(embedder(), geometry)(ids)
    assert torch.equal(after[:, :, :TEXT], before[:, :, :TEXT])
    change = near_whole_turns(angles(after, geometry) - angles(before, geometry))
    for axis, length in enumerate((height, width)):
        pairs = change[..., 8:36] if axis == 0 else change[..., 36:]
        assert pairs.max() <= math.pi / 2 + ROUNDING
        middle = pairs.narrow(axis, (length - 1) // 2, 1 + (length - 1) % 2)
        # Half a token off the middle where the length is even.
        assert middle.max() <= (1 - length % 2) * math.pi / length / 2 + ROUNDING


@pytest.mark.parametrize("axis", [0, 1], ids=["rows", "columns"])
def test_an_axis_that_does_not_wrap_keeps_its_positions(axis, embedder):
    geometry, ids = Geometry(9, 14), grid_ids(9, 14)
    before = embedder()(ids)
    after = periodic(embedder(), geometry, wrap_height=axis == 1, wrap_width=axis == 0)(ids)
    kept, turned = (slice(8, 36), slice(36, 64))[:: 1 if axis == 0 else -1]
    assert torch.equal(after[:, :, :, kept], before[:, :, :, kept])
    assert not torch.allclose(after[:, :, :, turned], before[:, :, :, turned], atol=0.1)


def test_without_a_grid_the_embedder_inside_answers(embedder):
    ids = grid_ids(9, 14)
    assert torch.equal(periodic(embedder(), None)(ids), embedder()(ids))
    too_large = Geometry(9, 15)
    assert torch.equal(periodic(embedder(), too_large)(ids), embedder()(ids))


@pytest.mark.parametrize("size", [(1, 9), (9, 1), (1, 1)], ids=str)
def test_one_row_or_column_is_no_division_by_zero(size, embedder):
    assert periodic(embedder(), Geometry(*size))(grid_ids(*size)).isfinite().all()
    ids = grid_ids(*size)
    assert periodic(embedder(), Geometry(*size))(0 * ids).isfinite().all()  # all in one place


def test_a_reference_lies_where_the_picture_does(embedder):
    height, width = 6, 8
    image, reference = grid_ids(height, width), grid_ids(height, width)[:, TEXT:]
    ids = torch.cat([image, reference + torch.tensor([1.0, 0, 0])], 1)
    geometry = Geometry(height, width, references=height * width)
    found = periodic(embedder(), geometry)(ids)[0, 0, TEXT:].unflatten(0, (2, -1))
    assert torch.equal(found[0, :, 8:], found[1, :, 8:])
    assert not torch.equal(found[0, :, :8], found[1, :, :8])


def test_a_reference_beside_the_picture_goes_on_from_its_edge(embedder):
    height, width = 6, 8
    beside = grid_ids(height, width)[:, TEXT:] + torch.tensor([0.0, 0.0, width])
    ids = torch.cat([grid_ids(height, width), beside], 1)
    both = Geometry(height, width, references=height * width)
    before, after = (f(ids)[0, 0, TEXT:] for f in (embedder(), periodic(embedder(), both)))
    before, after = (torch.atan2(x[..., 1, 0], x[..., 0, 0]) for x in (before, after))
    row = [
        x[[*range(width), *range(height * width, height * width + width)]] for x in (before, after)
    ]
    steps, true = row[1].diff(dim=0), row[0].diff(dim=0)
    assert near_whole_turns(steps[:width] - steps[0]).max() <= ROUNDING
    assert near_whole_turns(steps[width:] - true[width:]).max() <= ROUNDING
