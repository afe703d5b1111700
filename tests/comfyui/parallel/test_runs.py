"""What stands around a shared run: other nodes, parts of the picture, shares, memory."""

from __future__ import annotations

import pytest
import torch

from ..flux_runs import conditioning

LIMIT = 1e-6


def test_text_rows_are_equal_to_the_bit_on_all_ranks(
    sample, flux_model, nodes, product, monkeypatch
):
    team = product("comfyui.parallel.team")
    original, seen = team.model_call, {}

    def call(executor, family, geometry, one, seat, arguments):
        block = one.model.diffusion_model.double_blocks[-1]
        handle = block.register_forward_hook(
            lambda _, args, out: seen.setdefault(seat.rank, []).append(out[1].clone())
        )
        try:
            return original(executor, family, geometry, one, seat, arguments)
        finally:
            handle.remove()

    monkeypatch.setattr(team, "model_call", call)
    model = nodes.CLEARAttention(flux_model("b"), radius=3)
    sample(nodes.CLEARParallel(model, "cpu,cpu,cpu"))
    assert seen.keys() == {0, 1, 2}
    for rank in (1, 2):
        pairs = zip(seen[rank], seen[0], strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


def test_the_order_of_nodes_does_not_matter(sample, flux_model, nodes):
    base = flux_model("b")
    first = nodes.CLEARAttention(nodes.CLEARParallel(base, "cpu,cpu"), radius=3)
    last = nodes.CLEARParallel(nodes.CLEARAttention(base, radius=3), "cpu,cpu")
    between = nodes.CLEARParallel(nodes.CLEARSeamless(base, "both"), "cpu,cpu")
    behind = nodes.CLEARSeamless(nodes.CLEARParallel(base, "cpu,cpu"), "both")
    assert torch.equal(sample(first), sample(last))
    assert torch.equal(sample(between), sample(behind))


def test_of_two_nodes_the_later_one_wins(compared, flux_model, nodes, lines):
    model = nodes.CLEARParallel(nodes.CLEARAttention(flux_model("b"), radius=3), "cpu,cpu,cpu")
    several = nodes.CLEARParallel(model, "cpu,cpu", "2:1")
    assert several.model_options["transformer_options"]["clear_parallel"].shares == (2, 1)
    assert len(several.model_options["transformer_options"]["clear_parallel"].devices) == 2


def test_areas_of_the_prompt_are_shared(compared, sample, flux_model, nodes):
    part = conditioning(40, 2)
    part[0][1]["area"] = (18, 16, 4, 2)
    model = nodes.CLEARAttention(flux_model("b"), radius=3)
    positive = conditioning(24, 5) + part
    assert compared(model, "cpu,cpu", positive=positive) < LIMIT


def test_a_part_of_the_picture_is_painted_anew(compared, flux_model, nodes):
    mask = torch.zeros(1, 1, 26, 20)
    mask[..., 5:21, 3:15] = 1
    model = nodes.CLEARAttention(flux_model("b"), radius=3)
    assert compared(model, mask=mask) < LIMIT


def test_unlike_devices_get_shares_by_their_speed_and_keep_them(
    sample, flux_model, nodes, product, monkeypatch
):
    node = product("comfyui.parallel.node")
    names = iter(range(100))
    monkeypatch.setattr(node, "name_of", lambda device: str(next(names)))
    teams = []
    measure = product("comfyui.parallel.team").Team._measure

    def slow(team):
        for rank in team.ranks:
            rank.busy = 3.0 if rank is team.ranks[1] else 1.0
        teams.append(team)
        measure(team)

    monkeypatch.setattr(product("comfyui.parallel.team").Team, "_measure", slow)
    model = nodes.CLEARAttention(flux_model("b"), radius=3)
    several = nodes.CLEARParallel(model, "cpu,cpu")
    sample(several, size=(32, 20))
    shares = teams[-1].shares
    assert shares[0] / shares[1] == pytest.approx(3.0)
    assert [rank.lines for rank in teams[-1].ranks] == [12, 4]
    first = len(teams)
    sample(several, size=(32, 20))
    assert teams[first].shares == shares
    assert teams[first] is not teams[0]


@pytest.mark.parametrize(
    ("size", "shares", "expected"),
    [
        ((1, 16, 256, 128), (1, 1), [1, 16, 128 + 2 * 15 * 2, 128]),
        ((2, 16, 128, 256), (3, 1), [2, 16, 128, 192 + 2 * 15 * 2]),
        ((1, 16, 64, 64), (1, 1), [1, 16, 64, 64]),
    ],
    ids=["tall", "wide, uneven", "halo over all"],
)
def test_the_host_is_told_the_largest_band_with_its_halo(
    size, shares, expected, flux_model, nodes, product
):
    model = nodes.CLEARAttention(flux_model("b"), radius=16)
    node, patch = (product(f"comfyui.{name}") for name in ("parallel.node", "core.patch"))
    assert node.band_shape(model, size, patch.settings_of(model), shares) == expected


def test_the_host_loads_every_device_with_the_band_s_memory(sample, flux_model, nodes, monkeypatch):
    import comfy.sampler_helpers

    shapes = []
    estimate = comfy.sampler_helpers.estimate_memory

    def seen(model, noise_shape, conds):
        shapes.append(list(noise_shape))
        return estimate(model, noise_shape, conds)

    monkeypatch.setattr(comfy.sampler_helpers, "estimate_memory", seen)
    model = nodes.CLEARAttention(flux_model("b"), radius=2)
    sample(nodes.CLEARParallel(model, "cpu,cpu"), size=(60, 20))
    assert shapes == [[1, 16, 30 + 4, 20]]


def test_each_device_computes_its_own_weights(sample, flux_model, nodes, product):
    model = flux_model("b")
    sample(nodes.CLEARParallel(model, "cpu,cpu,cpu"))
    copies = product("comfyui.parallel.copies").COPIES._by_model[model.model]
    networks = [one.model.diffusion_model for one in copies]
    assert len({id(one) for one in (model.model.diffusion_model, *networks)}) == 3
    pointers = {one.img_in.weight.data_ptr() for one in (model.model.diffusion_model, *networks)}
    assert len(pointers) == 3


def test_a_cascade_is_painted_by_several_devices(upscale, demo, nodes, lines):
    image = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(3))
    model = nodes.CLEARAttention(demo.model, radius=3)
    _, expected = upscale(image, 160, stages="112", model=model)
    _, actual = upscale(image, 160, stages="112", model=nodes.CLEARParallel(model, "cpu,cpu"))
    difference = (actual["samples"] - expected["samples"]).norm() / expected["samples"].norm()
    assert difference < 1e-5  # four steps in two stages, and a VAE between them
    assert sum("parallel: each of" in line for line in lines()) == 2
