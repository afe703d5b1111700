"""Low-rank checkpoints from whole ones: the nearest of their rank, and nothing lost in silence."""

from __future__ import annotations

import pytest
import torch

from clear_attention.families.flux import NAMES as FLUX
from clear_attention.families.names import ModelSize
from clear_attention.families.sd3 import NAMES as SD3
from clear_attention.weights import CheckpointError, checkpoint, load, low_rank, read
from clear_attention.weights.extract import LayerError, extract, factors, relative
from clear_attention.weights.rows import bias_rows

from ..families.test_sd3_names import made_up

SIZE = ModelSize(24, {"double": 2, "single": 3}, 0)
ROWS = FLUX.slices(SIZE)


@pytest.fixture
def clear(published):
    """The tensors of a whole checkpoint."""
    return published(hidden=24, factor=2, dtype=torch.float32)


@pytest.fixture
def base(clear):
    """A host's fused tensors that differ from it in all rows; single blocks have an MLP too."""
    draw = torch.Generator().manual_seed(5)
    rows = {"img_attn.qkv": 72, "img_attn.proj": 24, "linear1": 168}
    state = {}
    for block in ("double_blocks.0", "double_blocks.1", *(f"single_blocks.{i}" for i in range(3))):
        for layer, count in rows.items():
            if layer.startswith("img") == block.startswith("double"):
                weight = torch.randn(count, 24, generator=draw)
                state[f"{block}.{layer}.weight"] = weight
                state[f"{block}.{layer}.bias"] = torch.randn(count, generator=draw)
    return state


def matrix(values, draw=None):
    """Make a square matrix with these singular values."""
    draw = draw or torch.Generator().manual_seed(1)
    edge = len(values)
    drawn = (torch.randn(edge, edge, generator=draw, dtype=values.dtype) for _ in range(2))
    left, right = (torch.linalg.qr(each).Q for each in drawn)
    return left * values @ right


SPECTRA = {
    "flat": torch.ones(120),
    "slow": torch.arange(1, 121).float() ** -0.5,
    "fast": 0.8 ** torch.arange(120).float(),
    "low rank": torch.cat([torch.ones(10), torch.zeros(110)]),
}


@pytest.mark.parametrize("rank", [1, 7, 40, 110, 120])
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_factors_are_within_one_percent_of_the_nearest_product(spectrum, rank):
    values = SPECTRA[spectrum]
    change = matrix(values)
    up, down = factors(change, rank)
    assert up.shape == (120, rank) and down.shape == (rank, 120)
    least = values[rank:].square().sum().sqrt()  # Eckart and Young 1936
    assert torch.linalg.norm(change - up @ down) <= 1.01 * least + 1e-5 * values.norm()


def test_factors_share_the_norm():
    up, down = factors(matrix(SPECTRA["slow"]), 5)
    torch.testing.assert_close(up.norm(dim=0), down.norm(dim=1))


def test_factors_are_the_same_each_time_and_leave_the_random_numbers_alone():
    torch.manual_seed(3)
    first, next_drawn = factors(matrix(SPECTRA["slow"]), 5), torch.rand(4)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(4), next_drawn)
    second = factors(matrix(SPECTRA["slow"]), 5)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.gpu
def test_factors_on_a_gpu_leave_its_random_numbers_alone():
    change = matrix(SPECTRA["slow"]).cuda()
    before = torch.cuda.get_rng_state()
    first, second = factors(change, 5), factors(change, 5)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_factors_of_float64_are_of_float64():
    values = 0.8 ** torch.arange(120).double()
    change = matrix(values)
    up, down = factors(change, 100)
    least = values[100:].square().sum().sqrt()
    assert least < 1e-9 * values.norm()  # beyond float32
    assert torch.linalg.norm(change - up @ down) <= 1.01 * least


def test_full_rank_is_the_difference(clear, base):
    extracted = extract(FLUX, ROWS, base, clear, rank=24, dtype=torch.float32)
    assert extracted.error < 1e-5
    for name, whole in FLUX.from_host(base, SIZE).items():
        if name.endswith("weight"):
            layer = f"transformer.{name.removesuffix('.weight')}"
            up, down = (extracted.tensors[f"{layer}.lora_{part}.weight"] for part in ("B", "A"))
            torch.testing.assert_close(up @ down, clear[name] - whole, atol=2e-5, rtol=0)


def test_biases_are_whole_and_leave_other_rows_alone(clear, base):
    tensors = extract(FLUX, ROWS, base, clear, rank=1, dtype=torch.float32).tensors
    qkv = tensors["diffusion_model.double_blocks.1.img_attn.qkv.diff_b"]
    parts = [clear[f"transformer_blocks.1.attn.to_{part}.bias"] for part in "qkv"]
    assert torch.equal(qkv, torch.cat(parts) - base["double_blocks.1.img_attn.qkv.bias"])
    linear1 = tensors["diffusion_model.single_blocks.2.linear1.diff_b"]
    assert linear1.shape == (168,) and not linear1[72:].any()
    to_k = clear["single_transformer_blocks.2.attn.to_k.bias"]
    assert torch.equal(linear1[24:48], to_k - base["single_blocks.2.linear1.bias"][24:48])


def test_the_file_is_read_back_with_its_window(clear, base, tmp_path):
    extracted = extract(FLUX, ROWS, base, clear, rank=3, dtype=torch.bfloat16)
    path = tmp_path / "anything.safetensors"
    radii = {("double", 1): 4}
    low_rank.save(path, extracted.tensors, radius=9, radii=radii, base="flux1-dev")
    found = read(path)
    assert found.radii == radii
    assert (found.rank, found.radius, found.pool_factor, found.base) == (3, 9, 2, "flux1-dev")
    loaded = load(found)
    pooling = [name for name in clear if name.endswith("spatial_weight")]
    assert pooling and all(torch.equal(loaded[name], clear[name]) for name in pooling)
    assert len(bias_rows(found.shapes)) == 2 * 2 + 3
    assert abs(extracted.size_bytes - path.stat().st_size) < 16_000


def test_the_error_is_that_of_what_is_stored(clear, base):
    extracted = extract(FLUX, ROWS, base, clear, rank=5, dtype=torch.bfloat16)
    by_kind = {}
    for name, whole in FLUX.from_host(base, SIZE).items():
        if not name.endswith("weight"):
            continue
        layer = name.removesuffix(".weight")
        up, down = (
            extracted.tensors[f"transformer.{layer}.lora_{part}.weight"].double()
            for part in ("B", "A")
        )
        change = clear[name].double() - whole.double()
        kind = "single" if layer.startswith("single") else "double"
        squares = by_kind.setdefault(f"{kind} {layer.split('.attn.')[1]}", [0.0, 0.0])
        squares[0] += float((change - up @ down).square().sum())
        squares[1] += float(change.square().sum())
    assert extracted.by_kind.keys() == by_kind.keys() and len(by_kind) == 7
    for kind, (lost, change) in by_kind.items():
        assert extracted.by_kind[kind] == pytest.approx((lost / change) ** 0.5, rel=1e-4)
    lost, change = map(sum, zip(*by_kind.values(), strict=True))
    assert extracted.error == pytest.approx((lost / change) ** 0.5, rel=1e-4)
    assert 0.3 < extracted.error < 1


def test_what_did_not_change_has_no_error():
    assert relative([]) == relative([LayerError("single to_q", 0.0, 0.0)]) == 0.0


def test_the_error_falls_as_the_rank_grows(clear, base):
    errors = [
        extract(FLUX, ROWS, base, clear, rank=rank, dtype=torch.float32).error
        for rank in (1, 4, 12, 20)
    ]
    assert errors == sorted(errors, reverse=True) and errors[-1] < errors[0] / 2


def test_sd3_is_extracted_too():
    clear = made_up(2, 1, 0)
    rows = SD3.slices(ModelSize(128, {"joint": 2, "image": 1}, 0))
    fused = {
        key: torch.zeros((384 if "qkv" in key else 128, *[128][: "weight" in key]))
        for key, _ in rows.values()
    }
    extracted = extract(SD3, rows, fused, clear, rank=128, dtype=torch.float32)
    assert extracted.error < 1e-5
    assert "image to_out.0" in extracted.by_kind and "joint to_q" in extracted.by_kind


def test_progress_is_told_and_may_stop_it(clear, base):
    seen = []

    def stop(done, of):
        seen.append((done, of))
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(FLUX, ROWS, base, clear, rank=2, dtype=torch.float32, progress=stop)
    assert seen == [(1, 17), (2, 17), (3, 17)]


@pytest.mark.parametrize("rank", [0, -1, 25])
def test_a_rank_must_fit_the_width(rank, clear, base):
    with pytest.raises(CheckpointError, match=f"from 1 to the model's width of 24, got {rank}"):
        extract(FLUX, ROWS, base, clear, rank=rank, dtype=torch.float32)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_base_that_is_not_finite_is_refused(value, clear, base):
    base["double_blocks.1.img_attn.qkv.weight"][30, 3] = value
    with pytest.raises(CheckpointError, match=r"got NaN or infinite ones for .*to_k"):
        extract(FLUX, ROWS, base, clear, rank=2, dtype=torch.float32)


@pytest.mark.parametrize("length", [(), (71,), (72, 1)], ids=str)
def test_a_bias_of_another_shape_is_refused(length, clear, base, tmp_path):
    tensors = extract(FLUX, ROWS, base, clear, rank=2, dtype=torch.float32).tensors
    tensors["diffusion_model.double_blocks.0.img_attn.qkv.diff_b"] = torch.zeros(length)
    with pytest.raises(CheckpointError, match=r"qkv\.diff_b' must have the shape \[72\]"):
        checkpoint.save(tmp_path / "x.safetensors", tensors, radius=4)
