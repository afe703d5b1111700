"""What CLEAR Low Memory reports, and what it warns of."""

from __future__ import annotations

import logging

import pytest

from ..low_memory_fixtures import GIB, SLICE

FREE = {"get_free_memory": 22 * GIB, "get_total_memory": 24 * GIB}


def lines(caplog, level):
    return [
        r.getMessage()[7:]
        for r in caplog.records
        if r.levelno == level and r.name.endswith("report")
    ]


def test_the_report_says_how_blocks_were_computed(flux_model, nodes, sample, caplog):
    caplog.set_level(logging.INFO)
    sample(nodes.CLEARLowMemory(flux_model("b"), 100))
    found = lines(caplog, logging.INFO)
    assert "memory: double blocks in slices of 100 tokens" in found
    assert "memory: single blocks in slices of 100 tokens" in found
    assert len(found) == len(set(found)) == 3
    assert any("no CLEAR window" in line for line in found)
    caplog.clear()
    sample(nodes.CLEARLowMemory(flux_model("b"), 0))
    assert "memory: double blocks whole: 130 tokens are one slice" in lines(caplog, logging.INFO)


@pytest.fixture
def card(monkeypatch):
    """A machine with 24 GiB of which 22 are free, and latents of another size than they are."""
    from comfy import model_management

    for name, value in FREE.items():
        monkeypatch.setattr(model_management, name, lambda *args, value=value, **kwargs: value)


@pytest.mark.parametrize(
    ("edge_px", "taesd", "expected"),
    [
        (1024, True, []),
        (4096, True, ["VAE Decode"]),
        (8192, True, ["TAESD", "VAE Decode"]),
        (8192, False, ["VAE Decode"]),
    ],
)
def test_what_runs_out_of_memory_is_said(
    edge_px, taesd, expected, flux_model, product, card, monkeypatch
):
    import folder_paths
    from comfy.cli_args import LatentPreviewMethod, args

    method = LatentPreviewMethod.TAESD if taesd else LatentPreviewMethod.Latent2RGB
    monkeypatch.setattr(args, "preview_method", method)
    monkeypatch.setattr(folder_paths, "get_filename_list", lambda folder: ["taef1_decoder.pth"])
    module = product("comfyui.memory.warnings")
    found = module.warnings(flux_model("a"), [1, 16, edge_px // 8, edge_px // 8])
    assert len(found) == len(expected)
    for line, word in zip(found, expected, strict=True):
        assert word in line
        assert f"{edge_px} x {edge_px} pixels" in line


def test_a_warning_is_in_the_log_once(flux_model, nodes, sample, monkeypatch, caplog):
    from comfy import model_management

    monkeypatch.setattr(model_management, "get_total_memory", lambda *args, **kwargs: 1000)
    caplog.set_level(logging.INFO)
    sample(nodes.CLEARLowMemory(flux_model("b"), SLICE))
    assert sum("VAE Decode" in r.getMessage() for r in caplog.records) == 1
    assert len([line for line in lines(caplog, logging.WARNING) if "VAE Decode" in line]) == 1
