"""What the demo's teacher trains on: parts of large pictures, with their places in them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from PIL import Image

PICTURE_PX, PART_PX = 256, 64
FACTOR = 10.0


@pytest.fixture
def batches(host):
    from clear_attention.distill.config import Training
    from demo.teaching.photographs import Photograph
    from demo.teaching.placed import Part, PlacedBatches

    class Shades(Photograph):
        """Green grows downwards, red to the right."""

        def load(self, edge=0):
            down = Image.linear_gradient("L").resize((PICTURE_PX, PICTURE_PX))
            return Image.merge("RGB", (down.rotate(90), down, Image.new("L", down.size, 128)))

    part = Part(PICTURE_PX, PART_PX, 1.0, 2, (FACTOR,))
    training = Training(steps=1, batch_tokens=16)
    return PlacedBatches(training, [Shades("shades", ("shades",))], [part])


def test_a_part_is_cut_from_where_the_batch_says(batches):
    (wholes,) = batches.pictures.values()
    places = set()
    for step in range(40):
        batch = batches.draw(step)
        row, column = batch.at
        places.add(batch.at)
        rows, columns = (slice(2 * at, 2 * at + PART_PX // 8) for at in (row, column))
        assert any(
            torch.equal(batch.samples.latent[0], whole[:, rows, columns]) for whole in wholes
        )
        assert min(batch.at) >= 0 and max(batch.at) <= (PICTURE_PX - PART_PX) // 16
    assert len(places) > 20
    again = batches.draw(3)
    assert again.at == batches.draw(3).at
    assert torch.equal(again.noise, batches.draw(3).noise)


def test_the_network_is_told_the_places_and_the_rotary_base(batches, host):
    from clear_attention.comfyui.distill.denoiser import HostDenoiser
    from demo.nodes.network import load_model
    from demo.teaching.placed import PlacedTraining

    task = PlacedTraining(HostDenoiser(load_model()), batches.training)
    seen = SimpleNamespace()
    positions = task.network.pe_embedder
    theta = positions.theta

    def note(_, arguments):
        seen.ids, seen.theta = arguments[0], positions.theta

    handle = positions.register_forward_pre_hook(note)
    batch = next(batch for batch in map(batches.draw, range(40)) if min(batch.at) > 0)
    with task.context():
        loss = task(batch.part(0, 1).to(torch.device("cpu")))["loss"]
    handle.remove()
    assert torch.isfinite(loss)
    tokens = PART_PX // 16
    places = seen.ids[0, -(tokens**2) :, 1:].unflatten(0, (tokens, tokens))
    assert places[0, 0].tolist() == list(map(float, batch.at))
    assert places[-1, -1].tolist() == [float(at + tokens - 1) for at in batch.at]
    assert seen.theta == FACTOR * theta
    assert positions.theta == theta
    assert "rope_options" not in task.denoiser.patcher.model_options["transformer_options"]


def test_a_photograph_without_end_goes_on_as_its_mirror(host):
    from demo.teaching.photographs import mirrored

    small = Image.linear_gradient("L").convert("RGB").resize((64, 64))
    large = mirrored(small, 190)
    assert large.size == (192, 192)
    for left, top in ((0, 0), (128, 0), (0, 128)):
        assert large.crop((left, top, left + 64, top + 64)).tobytes() == small.tobytes()
    across = small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert large.crop((64, 0, 128, 64)).tobytes() == across.tobytes()
