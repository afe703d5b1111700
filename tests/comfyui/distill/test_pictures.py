"""Pictures of a folder with captions: listed, cut to their aspect ratio, encoded, learned from."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from clear_attention.distill.config import ConfigError, Pictures
from clear_attention.distill.data.batches import Batches
from clear_attention.distill.data.shards import ShardFolder

from ..distil_fixtures import POOLED, WIDTHS, WordsCLIP, config, contents, unrehearsed

SHAPES = ((96, 200), (210, 90))
"""Width and height of a tall and of a wide picture, before they are cut."""


class AveragesVAE:
    """A VAE whose latents are averages of 8 x 8 pixels, in 16 channels."""

    def __init__(self):
        self.encoded = 0

    def encode(self, pixels):
        assert pixels.shape[-1] == 3 and pixels.shape[1] % 64 == pixels.shape[2] % 64 == 0
        self.encoded += len(pixels)
        mean = torch.nn.functional.avg_pool2d(pixels.permute(0, 3, 1, 2), 8)
        return mean.repeat(1, 6, 1, 1)[:, :16]


@pytest.fixture
def module(host):
    from clear_attention.comfyui.distill.data import pictures

    return pictures


@pytest.fixture
def folder(tmp_path):
    """Fifty pictures with captions, half of them tall, some in a folder of their own."""
    draw = np.random.default_rng(0)
    for number in range(50):
        width, height = SHAPES[number % 2]
        path = tmp_path / "mine" / ("more" if number % 5 == 0 else "") / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        words = "a picture" if number % 3 else "a picture of many words indeed"
        path.with_suffix(".txt").write_text(f"{words}\n {number}\n", encoding="utf-8-sig")
    return tmp_path / "mine"


def settings(folder, **given):
    return Pictures(folder, **{"held_out": 5, "area_px": 64 * 128, **given})


def test_fifty_pictures_of_two_aspect_ratios_are_learned_from(
    folder, teacher, module, tmp_path, monkeypatch
):
    import folder_paths

    from clear_attention.comfyui.distill.run import distil
    from clear_attention.comfyui.distill.watcher import Watcher
    from clear_attention.comfyui.weights.loader import load_onto

    (tmp_path / "clear").mkdir()
    entry = ([str(tmp_path / "clear")], {".safetensors"})
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "clear", entry)
    run, vae, said = config(tmp_path, "b", pictures=settings(folder)), AveragesVAE(), []
    watcher = Watcher(progress=lambda what, done, of: said.append((what, done, of)))
    clip = WordsCLIP(WIDTHS["b"])
    with torch.inference_mode():
        assert distil(teacher("b"), clip, run, [], watcher, vae)
        assert (vae.encoded, clip.encoded) == (50, 51)  # a text to know what the run will write
        assert distil(teacher("b"), clip, run, [], watcher, vae)  # nothing is encoded again
        assert (vae.encoded, clip.encoded) == (50, 51)
        load_onto(teacher("b"), run.output.name)
    assert said[0] == ("encoding pictures", 0, 45)
    assert ("encoding pictures held out", 5, 5) in said
    data = ShardFolder(run.data_folder / "pictures")
    assert len(data) == 45 and len(ShardFolder(run.data_folder / "pictures_held_out")) == 5
    shapes = {shard.latent for shard in data.shards}
    assert shapes == {(16, 16, 8), (16, 8, 16)}
    assert {shard.text_tokens for shard in data.shards} == {4, 7}
    drawn = [Batches(data, run.training).draw(step).samples.latent.shape[1:] for step in range(40)]
    assert {tuple(shape) for shape in drawn} == shapes


def test_painted_pictures_and_ones_of_a_folder_are_drawn_from_alike(
    folder, teacher, module, tmp_path, monkeypatch
):
    from clear_attention.comfyui.distill import run as runs
    from clear_attention.comfyui.distill.data.datasets import encode_pictures, open_data
    from clear_attention.comfyui.distill.teacher import fingerprint_of
    from clear_attention.comfyui.distill.watcher import Watcher

    run = config(tmp_path, "b", pictures=settings(folder))
    model, clip = teacher("b"), WordsCLIP(WIDTHS["b"])
    distil = unrehearsed(runs, monkeypatch).distil
    with torch.inference_mode():
        assert distil(model, clip, run, ["one two", "three"], Watcher(), AveragesVAE())
        data, held_out = open_data(run, fingerprint_of(model))
        assert sum(map(len, data.buckets())) == 45 + run.generation.samples
        assert sum(map(len, held_out.buckets())) == 5 + run.generation.held_out_samples
        # Texts that are lost are encoded again when the run goes on.
        before = contents(run.data_folder)
        for each in ("train", "pictures"):
            cut, *others = (run.data_folder / each).glob("texts/*/*.safetensors")
            cut.write_bytes(cut.read_bytes()[:-1])
            for gone in others[:1]:
                gone.unlink()
        with pytest.raises(ValueError, match="its prompt gives other numbers than before"):
            distil(model, WordsCLIP(8), run, ["one two", "three"], Watcher(), AveragesVAE())
        assert distil(model, clip, run, ["one two", "three"], Watcher(), AveragesVAE())
        assert contents(run.data_folder) == before
        identity = data.identity()
        assert identity["samples"] == run.generation.samples
        assert identity["pictures"]["samples"] == 45
        # Without the folder they are those of the teacher alone, as before.
        alone, _ = open_data(dataclasses.replace(run, pictures=Pictures()), fingerprint_of(model))
        assert alone.identity() == {k: v for k, v in identity.items() if k != "pictures"}
        both = "painted pictures and pictures of a folder, and this run has painted pictures"
        for prompts in (["one two", "three"], []):
            with pytest.raises(ValueError, match=f"it learned from {both}. Set the prompts"):
                distil(
                    model, clip, dataclasses.replace(run, pictures=Pictures()), prompts, Watcher()
                )
        more = dataclasses.replace(run, pictures=settings(folder, area_px=64 * 64))
        with pytest.raises(ValueError, match="area_px was 8192 and is now 4096"):
            encode_pictures(model, clip, AveragesVAE(), more, Watcher())


def test_other_pictures_are_refused_before_any_is_encoded(folder, module, teacher, tmp_path):
    from clear_attention.comfyui.distill.data.datasets import encode_pictures
    from clear_attention.comfyui.distill.watcher import Watcher

    run, vae = config(tmp_path, "b", pictures=settings(folder)), AveragesVAE()
    given = (teacher("b"), WordsCLIP(WIDTHS["b"]), vae)
    assert encode_pictures(*given, run, Watcher())
    assert encode_pictures(*given, run, Watcher()) and vae.encoded == 50
    (folder / "01.txt").write_text("another caption")
    with pytest.raises(ValueError, match=r"pictures was made with other settings: pictures was"):
        encode_pictures(*given, run, Watcher())
    (folder / "01.png").unlink()
    fewer = dataclasses.replace(run, pictures=settings(folder, held_out=4))
    with pytest.raises(ValueError, match=r"pictures was '45, \w+' and is now '4[45], \w+'"):
        encode_pictures(*given, fewer, Watcher())
    assert vae.encoded == 50


def test_a_picture_that_cannot_be_read_is_found_before_the_teacher_paints(
    folder, module, teacher, tmp_path
):
    from clear_attention.comfyui.distill.run import distil
    from clear_attention.comfyui.distill.watcher import Watcher

    (folder / "03.png").write_bytes(b"no picture")
    run = config(tmp_path, "b", pictures=settings(folder))
    with torch.inference_mode(), pytest.raises(ConfigError, match=r"03\.png cannot be read"):
        distil(teacher("b"), WordsCLIP(WIDTHS["b"]), run, ["one", "two"], Watcher(), AveragesVAE())
    assert not list(tmp_path.rglob("train/*.safetensors"))


@pytest.fixture
def node(teacher, sd3_folders, product, node_classes, short_generation, tmp_path, monkeypatch):
    """Run the node with a folder of pictures in the host's input folder, which is this test's."""
    import folder_paths

    unrehearsed(product("comfyui.distill.run"), monkeypatch)
    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(tmp_path))
    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path / "output"))
    entry = ([str(tmp_path / "clear")], {".safetensors"})
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "clear", entry)

    def node(prompts, pictures_folder, vae=None, name="mine"):
        given = dict(name=name, radius=2, pool_factor=0, rank=2, steps=2, batch=2, samples=2)
        given |= dict(width=128, height=64, optimiser="adamw", learning_rate=0.001)
        given |= dict(guidance=0.0, cfg=1.0, seed=0, vae=vae, pictures_folder=pictures_folder)
        with torch.inference_mode():
            clip = WordsCLIP(WIDTHS["b"])
            node_classes["CLEARDistill"].execute(teacher("b"), clip, prompts, **given)
        data = tmp_path / "output" / "clear_distill" / name / "data"
        return {path.name: ShardFolder(path) for path in data.iterdir() if path.is_dir()}

    return node


class ShowingVAE(AveragesVAE):
    """One that decodes too, for the node shows pictures where it has a VAE."""

    def decode(self, latent):
        return latent[:, :3].permute(0, 2, 3, 1).clamp(0, 1)


def test_the_node_learns_from_a_folder_alone_or_beside_prompts(folder, node):
    data = node(" \n ", " mine ", ShowingVAE())
    assert {name: len(each) for name, each in data.items()} == {
        "pictures": 45,
        "pictures_held_out": 5,
    }
    assert data["pictures"].made_with["area_px"] == 64 * 128
    data = node("one two\nthree", str(folder), ShowingVAE(), name="both")
    assert len(data["pictures"]) == 45 and len(data["train"]) == 2


def test_an_empty_text_takes_no_pictures(node):
    assert set(node("one two\nthree", "  ")) == {"train", "held_out"}
    with pytest.raises(ValueError, match="must have a prompt on at least one line"):
        node("", "")


def test_a_folder_that_cannot_be_used_is_a_sentence_before_anything_is_painted(
    folder, node, tmp_path
):
    with pytest.raises(ValueError, match=r"must hold pictures .*got .*nothing"):
        node("one", "nothing", ShowingVAE())
    with pytest.raises(ValueError, match="need the model's VAE: connect one"):
        node("one", "mine")
    (folder / "01.txt").unlink()
    with pytest.raises(ValueError, match=r"01\.png have none"):
        node("one", "mine", ShowingVAE())
    assert not list(tmp_path.rglob("*.safetensors"))


def test_what_is_missing_of_a_folder_is_counted_before(folder, module, teacher, tmp_path):
    from clear_attention.comfyui.distill.ahead import look_ahead
    from clear_attention.comfyui.distill.data.datasets import encode_pictures
    from clear_attention.comfyui.distill.data.missing import Missing, missing_in
    from clear_attention.comfyui.distill.watcher import Watcher

    run = config(tmp_path, "b", pictures=settings(folder))
    model, clip = teacher("b"), WordsCLIP(WIDTHS["b"])
    assert missing_in(run, []) == Missing(texts=50, encoded=50)
    found = look_ahead(model, clip, run, [], shows=False, processes=1)
    text = 4 * WIDTHS["b"] + POOLED
    assert found.disk.data == 50 * 2 * (16 * 64 * 128 // 64 + text)
    assert found.duration.painting == 0
    assert found.duration.training > 0 and found.duration.validation > 0
    assert encode_pictures(model, clip, AveragesVAE(), run, Watcher())
    assert missing_in(run, []) == Missing()
    again = look_ahead(model, clip, run, [], shows=False, processes=1)
    assert again.duration.training > 0 and again.disk.data == 0


@pytest.mark.parametrize(
    ("size", "area_px", "expected"),
    [
        ((1000, 1000), 1024**2, (1024, 1024)),
        ((1600, 900), 1024**2, (768, 1344)),
        ((900, 1600), 1024**2, (1344, 768)),
        ((4000, 100), 1024**2, (640, 1600)),  # no wider than 2.5 to 1
        ((10, 10), 64**2, (64, 64)),
    ],
)
def test_a_size_has_the_pictures_aspect_ratio_and_about_the_area(size, area_px, expected, module):
    assert module.size_near(*size, area_px) == expected
    assert expected[0] * expected[1] == pytest.approx(area_px, rel=0.06)


def test_a_picture_is_scaled_to_cover_its_size_and_cut_around_the_middle(module, tmp_path):
    stripes = np.zeros((100, 300, 3), np.uint8)
    stripes[:, 100:200] = 255  # the middle third is white
    Image.fromarray(stripes).save(tmp_path / "a.png")
    pixels = module.pixels(module.Captioned(tmp_path / "a.png", "stripes", (64, 64), 1))
    assert pixels.shape == (1, 64, 64, 3)
    assert pixels[:, :, 4:-4].min() > 0.95


def test_a_turned_photograph_is_upright(module, tmp_path):
    image = Image.fromarray(np.zeros((100, 200, 3), np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "a.jpg", exif=exif)
    (tmp_path / "a.txt").write_text("upright")
    (found,) = module.captioned(Pictures(tmp_path, area_px=64 * 128))
    assert found.size_px == (128, 64)


def test_held_out_pictures_are_spread_over_all_names(module):
    names = list(range(10))
    train, held_out = module.split(names, 2)
    assert held_out == [2, 7] and train == [0, 1, 3, 4, 5, 6, 8, 9]
    assert module.split(names, 0) == (names, [])
    with pytest.raises(ConfigError, match="smaller than the number of pictures, 10, got 10"):
        module.split(names, 10)


def test_an_edited_picture_or_caption_is_another_sample(module, folder):
    before = {each.path: each.seed for each in module.captioned(settings(folder))}
    assert len(set(before.values())) == 50 and all(0 < seed < 2**62 for seed in before.values())
    (folder / "01.txt").write_text("something else")
    after = {each.path: each.seed for each in module.captioned(settings(folder))}
    assert [path.name for path in before if before[path] != after[path]] == ["01.png"]


def test_mistakes_are_one_sentence(module, folder, tmp_path, teacher):
    from clear_attention.comfyui.distill.data.datasets import encode_pictures
    from clear_attention.comfyui.distill.watcher import Watcher

    (folder / "02.txt").unlink()
    with pytest.raises(ConfigError, match=r"a text file with its caption .* 02\.png have none"):
        module.captioned(settings(folder))
    (folder / "02.txt").write_text("back")
    (folder / "03.png").write_bytes(b"no picture")
    with pytest.raises(ConfigError, match=r"03\.png cannot be read \(it is damaged, .* replace it"):
        module.captioned(settings(folder))
    (folder / "03.png").write_bytes((folder / "01.png").read_bytes()[:-99])
    cut = module.Captioned(folder / "03.png", "", (64, 64), 1)
    with pytest.raises(ConfigError, match=r"03\.png cannot be read \(it is damaged, .* replace it"):
        module.pixels(cut)
    (folder / "03.png").write_bytes((folder / "01.png").read_bytes())
    (folder / "03.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"caption .*03\.txt must be UTF-8 text: save"):
        module.captioned(settings(folder))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"must hold pictures \(\.png, "):
        module.captioned(settings(tmp_path / "empty"))
    run = config(tmp_path, "b", pictures=settings(folder))
    with pytest.raises(ConfigError, match=r"need the model's VAE"):
        encode_pictures(teacher("b"), WordsCLIP(8), None, run, Watcher())
