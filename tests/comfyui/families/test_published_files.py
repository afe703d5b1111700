"""Files under their published names go through the host's own loader, and CLEAR runs on them."""

from __future__ import annotations

import logging

import pytest
import torch

from . import published_files as files
from .zoo_models import host_version

pytestmark = pytest.mark.long  # two of the files are as wide as the real ones

FIRST_NARROW_FLUX = (0, 12, 0)
RADIUS, TOKENS = 2, (7, 6)
PUBLISHED = {  # shapes, channels of a latent, edge of a token, axes in front of the rows, text
    "z_image": (files.z_image, 16, 2, (), 2560),
    "qwen_image": (files.qwen_image, 16, 2, (1,), 3584),
    "flux2": (files.flux2, 128, 1, (), 48),
}
UNUSED = "missing: ['norm_final.weight']"
"""The host's class of Z-Image has it, and does not run it."""
BLOCKS = {
    "z_image": {"refiner": 2, "joint": 1},
    "qwen_image": {"joint": 1},
    "flux2": {"double": 1, "single": 1},
}


def sampled(model, name):
    import comfy.sample

    _, channels, patch, axes, width = PUBLISHED[name]
    generator = torch.Generator().manual_seed(1)
    size = (edge * patch for edge in TOKENS)
    noise = torch.randn(1, channels, *axes, *size, generator=generator)
    text = torch.randn(1, 9, width, generator=generator)
    positive = [[text, {"pooled_output": None}]]
    with torch.inference_mode():
        return comfy.sample.sample(
            *(model, noise, 1, 1.0, "euler", "simple"),
            *(positive, positive, torch.zeros_like(noise)),
            disable_pbar=True,
            seed=0,
        )


@pytest.fixture
def rows_once(monkeypatch):
    """Let networks take a file's tensors as they are, and multiply with repeated rows once.

    Copies of them would fill gigabytes.
    """
    load, linear = torch.nn.Module.load_state_dict, torch.nn.functional.linear

    def take(self, state, strict=True, assign=True):
        return load(self, state, strict, True)

    def multiply(x, weight, bias=None):
        if weight.stride(0):
            return linear(x, weight, bias)
        out = linear(x, weight[:1]).expand(*x.shape[:-1], len(weight))
        return out.clone() if bias is None else out + bias

    monkeypatch.setattr(torch.nn.Module, "load_state_dict", take)
    monkeypatch.setattr(torch.nn.functional, "linear", multiply)


def load(name, caplog):
    """Load a file as the Load Diffusion Model node does; the host must miss and leave nothing."""
    import comfy.sd

    caplog.set_level(logging.INFO)
    model = comfy.sd.load_diffusion_model_state_dict(files.tensors(PUBLISHED[name][0]()))
    logged = [record.getMessage() for record in caplog.records]
    lacking = [line for line in logged if "missing" in line or "unexpected" in line]
    assert all(line.endswith(UNUSED) for line in lacking), lacking
    assert not [line for line in logged if "left over" in line and "[]" not in line]
    return model


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_file_loads_and_all_of_its_blocks_become_local(
    name, host, product, nodes, reports, rows_once, caplog
):
    if name == "flux2" and host_version() < FIRST_NARROW_FLUX:
        with pytest.raises(ValueError, match="must be divisible by num_heads 48"):
            load(name, caplog)  # its detection knows FLUX.2 by the names, and gives it 48 heads
        return
    model = load(name, caplog)
    family = product("comfyui.families").require_family(model)
    table, size = product("comfyui.weights.base").table_and_size(model)
    assert family.data.key == table.family == name
    dense = sampled(model, name)
    local = sampled(nodes.CLEARAttention(model, RADIUS), name)
    assert local.isfinite().all() and not torch.equal(local, dense)
    report = reports[-1]
    paths = {
        (path.backend != "dense", path.layout.height, path.layout.width) for path in report.calls
    }
    assert paths == {(True, *TOKENS)} and not report.missed
    assert size.blocks == BLOCKS[name]
    assert sum(report.calls.values()) == sum(BLOCKS[name].values())
