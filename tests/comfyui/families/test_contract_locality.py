"""CLEAR Locality Probe on every architecture: each attention of the picture, and no other."""

from __future__ import annotations

import pytest
import torch

from .zoo import ENTRIES
from .zoo_calls import Calls, expected, listed
from .zoo_models import COLUMNS, ROWS, conditioning, latent, methods, present, reference_values

CASES = [
    pytest.param(name, method, id=f"{name} {method}".strip())
    for name in present()
    for method in (None, *methods(ENTRIES[name]))
]


@pytest.fixture
def measured(product, monkeypatch):
    """Measure a MODEL: what was measured, by block, and with which queries, keys and layout."""
    adapter, recording = product("comfyui.probe.locality"), product("comfyui.probe.recording")
    given = []
    measure = recording.measure_locality

    def kept(q, k, layout, **rest):
        given.append((q.clone(), k.clone(), layout))
        return measure(q, k, layout, **rest)

    monkeypatch.setattr(recording, "measure_locality", kept)

    def run(entry, model, prompt):
        given.clear()
        picture = {"samples": latent(entry)}
        with torch.inference_mode():
            return adapter.probe(model, adapter.Sample(prompt, picture)), list(given)

    return run


def prompt_of(entry, method):
    # As long as the picture: text among itself, and the picture to the text, look like it.
    values = {} if method is None else reference_values(entry, method)
    return conditioning(entry, ROWS * COLUMNS, **values)


@pytest.mark.parametrize("proportional", [False, True], ids=["plain", "proportional"])
@pytest.mark.parametrize(("name", "method"), CASES)
def test_the_picture_s_attentions_are_measured_and_no_other(
    name, method, proportional, zoo_model, measured, nodes
):
    entry, model = ENTRIES[name], zoo_model(name)
    if proportional:  # CLEAR's own override then stands in front of the probe's
        model = nodes.CLEARHighRes(model, 1.0, True)
    calls = Calls(entry, model)
    with calls:
        found, given = measured(entry, calls.seen_by(model), prompt_of(entry, method))
    own = [call for call in calls.seen if expected(entry, call)]
    blocks = {call.block for call in own}
    assert blocks == set(listed(entry, model))
    assert len(given) == len(own)
    assert {index for _, index in found} == {index for _, index in blocks}
    assert {kind for kind, _ in found} == set(entry.blocks) | set(entry.twice)
    for (q, k, layout), call in zip(given, own, strict=True):
        assert q.shape == k.shape
        image = q[:, :, layout.image_slice].transpose(1, 2).flatten(2)
        first = layout.image_slice.start - (layout.tokens - call.q.shape[1])
        assert image.equal(call.q[:, first : first + layout.image])
    for locality in found.values():
        assert locality.covering_radius == 8  # sees 6 rows and 5 columns away
        torch.testing.assert_close(locality.kept()[:, -1], torch.ones_like(locality.seen_by_all))
        assert (locality.kept_at(2) < locality.kept_at(99)).all()


@pytest.mark.parametrize("name", present())
def test_the_model_responds_to_every_block(name, zoo_model, product):
    """Through whatever projection, norm, gate, MLP and further blocks lie behind its attention."""
    adapter, sampling = product("comfyui.probe.locality"), product("comfyui.probe.sample")
    entry, model = ENTRIES[name], zoo_model(name)
    sample = sampling.Sample(conditioning(entry, 9), {"samples": latent(entry)})
    with torch.inference_mode():
        before = sampling.denoise_once(model, sample)
        found = adapter.probe_windows(model, [sample])
        assert sampling.denoise_once(model, sample).equal(before)
    for measured in found.values():
        assert measured.errors.radii == (1, 2, 3, 4, 6, 8)
        assert measured.errors.gain is not None
        assert measured.errors.squared[:-1].all() and not measured.errors.squared[-1]
        # With random weights attention is all but even: windows cost what they hide.
        errors = [measured.cost.error(radius) for radius in measured.errors.radii]
        assert errors == sorted(errors, reverse=True)
    assert any(measured.errors.gain > 0 for measured in found.values())


@pytest.mark.parametrize("name", present())
def test_the_node_lists_every_block_and_names_those_to_keep_dense(
    name, zoo_model, node_classes, product
):
    entry, model = ENTRIES[name], zoo_model(name)
    given = dict(latent={"samples": latent(entry)}, radius=1, share=1.0)
    with torch.inference_mode():
        _, table, dense, radii = (
            node_classes["CLEARLocality"].execute(model, conditioning(entry, 9), **given).args
        )
    counts = product("comfyui.core.blocks").block_counts(model)
    blocks = {(kind, index) for kind, count in counts.items() for index in range(count)}
    assert all(f"\n{kind} {index} " in table for kind, index in blocks)
    text = product("families.block_text")
    assert text.parse_blocks(dense) == blocks
    assert text.parse_radii(radii).keys() == blocks
    with_window, settings = (
        product("comfyui.core.patch").with_window,
        product("comfyui.core.settings"),
    )
    with_window(model, settings.WindowSettings(4, radii=text.parse_radii(radii)))


def test_keys_that_heads_share_and_queries_that_are_a_part_are_measured_as_wholes(product):
    whole_of = product("comfyui.probe.recording")._whole
    call_of = product("comfyui.core.calls.host_call").HostCall
    geometry = product("comfyui.core.geometry").Geometry(3, 4, cached="text")
    layout = geometry.layout(17)
    q, k = torch.randn(2, 4, 17, 8), torch.randn(2, 2, 17, 8)
    mask = torch.randn(1, 1, 17, 17)
    found = whole_of(call_of(q[:, :, 3:], k, k, mask[:, :, 3:], None), geometry, layout)
    whole, keys, rows = found
    assert whole[:, :, 3:].equal(q[:, :, 3:])
    assert not whole[:, :, :3].any()
    assert rows[:, :, 3:].equal(mask[:, :, 3:])
    assert keys.shape == q.shape
    assert all(keys[:, head].equal(k[:, head // 2]) for head in range(4))
    other = call_of(q[:, :, 6:], k, k, None, None)  # without a part of the picture
    assert whole_of(other, geometry, layout) is None
