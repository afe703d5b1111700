"""Data that several processes paint and encode: the folder of one process, to the bit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from clear_attention.distill.config import Pictures
from clear_attention.distill.data.parts import ALONE, Share
from clear_attention.distill.data.shards import ShardFolder

from ..distil_fixtures import WIDTHS, WordsCLIP, config, contents

# Two lengths of text, so that a piece becomes two shards; two sizes, of different cost.
PROMPTS = ["one two three", "four five six seven eight nine", "ten", "a red fox in the wet grass"]
TWO = [Share(index, 2) for index in range(2)]


class PlainVAE:
    """A VAE whose latents are averages of 8 x 8 pixels, in 16 channels."""

    def encode(self, pixels):
        mean = torch.nn.functional.avg_pool2d(pixels.permute(0, 3, 1, 2), 8)
        return mean.repeat(1, 6, 1, 1)[:, :16]


def settings(folder, **changes):
    run = config(folder, "b", **changes)
    generation = dataclasses.replace(
        run.generation, samples=11, shard=3, batch=2, sizes_px=((64, 64), (64, 128))
    )
    return dataclasses.replace(run, generation=generation)


@pytest.fixture
def paint(host):
    """Paint a share of a run's data, in one process or as one of several."""
    from clear_attention.comfyui.distill.data.datasets import paint_missing, take_in_parts
    from clear_attention.comfyui.distill.data.sampling import painter_of
    from clear_attention.comfyui.distill.watcher import Watcher

    def paint(model, run, shares, progress=lambda *_: None):
        clip = WordsCLIP(WIDTHS["b"])
        with torch.inference_mode():
            take_in_parts(run)
            for share in shares:
                watcher = Watcher(progress, should_stop=lambda: False)
                painter = painter_of(run, clip)
                assert paint_missing(model, clip, painter, run, PROMPTS, watcher, share)
            take_in_parts(run)
        return contents(run.data_folder)

    return paint


def test_processes_paint_what_one_paints_and_what_one_left_that_died(paint, teacher, tmp_path):
    model, said = teacher("b"), []
    alone = paint(model, settings(tmp_path / "alone"), [ALONE])
    several = settings(tmp_path / "several")
    assert paint(model, several, TWO, lambda *each: said.append(each)) == alone
    train = {(done, of) for what, done, of in said if what == "painting train data"}
    assert {of for _, of in train} == {5, 6} and {(5, 5), (6, 6)} <= train

    class Died(Exception):
        pass

    def die(what, done, of):
        if (what, done) == ("painting train data", 4):
            raise Died

    broken = settings(tmp_path / "broken")
    with pytest.raises(Died):
        paint(model, broken, TWO[::-1], die)
    assert list(broken.data_folder.rglob("part-*"))
    paint(model, broken, [Share(index, 3) for index in range(3)])
    whole, again = (ShardFolder(each.data_folder / "train") for each in (several, broken))
    assert again.seeds() == whole.seeds() == set(range(11))
    assert len(again) == 11 and not list(broken.data_folder.rglob("part-*"))
    assert samples_by_seed(again) == samples_by_seed(whole)


def samples_by_seed(data):
    found = {}
    for bucket in data.buckets():
        for number in range(len(bucket)):
            sample = bucket.load([number])
            rows = (sample.latent, sample.context.float(), sample.pooled.float())
            found[int(sample.seed)] = tuple(row.numpy().tobytes() for row in rows)
    return found


def test_processes_encode_the_pictures_that_one_encodes(host, teacher, tmp_path):
    from clear_attention.comfyui.distill.data.datasets import encode_pictures, take_in_parts
    from clear_attention.comfyui.distill.watcher import Watcher

    folder = tmp_path / "mine"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for number in range(9):
        shape = (96, 96 + 100 * (number % 2), 3)
        Image.fromarray(draw.integers(0, 256, shape, dtype=np.uint8)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(PROMPTS[number % 4])

    def encode(name, shares):
        run = settings(tmp_path / name, pictures=Pictures(folder, held_out=2, area_px=64 * 64))
        clip, watcher = WordsCLIP(WIDTHS["b"]), Watcher(should_stop=lambda: False)
        for share in shares:
            assert encode_pictures(teacher("b"), clip, PlainVAE(), run, watcher, share)
        take_in_parts(run)
        return contents(run.data_folder)

    alone = encode("alone", [ALONE])
    assert encode("several", TWO) == alone
    assert sum(name.endswith(".safetensors") and "texts" not in name for name in alone) > 4


def test_the_noise_of_each_sample_can_be_drawn_again(paint, teacher, tmp_path, monkeypatch):
    import comfy.sample

    from clear_attention.distill.data.batches import own_noise

    noises, sample = [], comfy.sample.sample

    def spied(model, noise, *rest, **more):
        noises.extend(noise)
        return sample(model, noise, *rest, **more)

    monkeypatch.setattr(comfy.sample, "sample", spied)
    run = settings(tmp_path)
    paint(teacher("b"), run, [ALONE])
    data = ShardFolder(run.data_folder / "train")
    for bucket in data.buckets():
        assert bucket.painted
        samples = bucket.load(range(len(bucket)))
        for row in range(len(samples)):
            again = own_noise(samples, row)
            assert any(torch.equal(noise, again) for noise in noises)
