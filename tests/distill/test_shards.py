"""Training data on disk: what is written is read, what is half written does not exist."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

sys.path.append(str(Path(__file__).parent))

import toy

from clear_attention.distill.config import Training
from clear_attention.distill.data.batches import Batches
from clear_attention.distill.data.shards import MANIFEST, Samples, ShardFolder

MADE_WITH = {"steps": 4, "sizes_px": ((64, 64),)}


def test_samples_come_back_by_their_number(tmp_path: Path):
    folder = ShardFolder(tmp_path, MADE_WITH)
    given = [toy.samples(3, seed=1), toy.samples(4, seed=2)]
    for samples in given:
        folder.add(samples)
    again = ShardFolder(tmp_path)
    assert len(again) == 7
    (bucket,) = again.buckets()
    loaded = bucket.load([5, 0])
    for name in ("latent", "context", "pooled", "seed"):
        expected = torch.stack([getattr(given[1], name)[2], getattr(given[0], name)[0]])
        assert torch.equal(getattr(loaded, name), expected), name


def test_a_folder_goes_on_where_it_was_and_knows_its_seeds(tmp_path: Path):
    ShardFolder(tmp_path, MADE_WITH).add(toy.samples(3))
    folder = ShardFolder(tmp_path, MADE_WITH)
    assert folder.seeds() == {0, 1, 2}
    late = toy.samples(2)
    folder.add(Samples(late.latent, late.context, late.pooled, torch.tensor([7, 9])))
    assert ShardFolder(tmp_path, MADE_WITH).seeds() == {0, 1, 2, 7, 9}
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_a_shard_that_no_manifest_lists_is_written_over(tmp_path: Path):
    folder = ShardFolder(tmp_path, MADE_WITH)
    folder.add(toy.samples(3))
    (tmp_path / "00001.safetensors").write_bytes(b"cut off")
    again = ShardFolder(tmp_path, MADE_WITH)
    again.add(toy.samples(2))
    assert len(ShardFolder(tmp_path).buckets()[0].load([4])) == 1


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_prompt_is_kept_once_however_many_shards_have_it(tmp_path: Path):
    shared, apart = (ShardFolder(tmp_path / name, MADE_WITH) for name in ("shared", "apart"))
    for number in range(3):
        given = toy.samples(32)  # of two prompts, the same ones each time
        shared.add(given)
        draw = torch.Generator().manual_seed(number)
        other = torch.randn(given.context.shape, generator=draw)
        apart.add(Samples(given.latent, other, given.pooled, given.seed))
    assert (len(shared.texts), len(apart.texts)) == (2, 96)
    saved = bytes_in(apart.folder) - bytes_in(shared.folder)
    assert saved > 94 * given.context[0].numel() * given.context.element_size()


def test_a_text_that_differs_in_its_pooled_vector_or_dtype_alone_is_another(tmp_path: Path):
    folder, given = ShardFolder(tmp_path, MADE_WITH), toy.samples(1)
    folder.add(given)
    folder.add(Samples(given.latent, given.context, given.pooled + 1, given.seed))
    folder.add(Samples(given.latent, given.context.bfloat16(), given.pooled, given.seed))
    assert len(folder.texts) == 3
    (bucket,) = folder.buckets()
    loaded = [bucket.load([number]) for number in range(3)]
    assert torch.equal(loaded[1].pooled, given.pooled + 1)
    assert loaded[2].context.dtype == torch.bfloat16


def write_version_1(folder: Path, samples: Samples) -> None:
    """Write a folder of one shard as version 1 had it: with the distinct texts of its samples."""
    tensors = {
        "latent": samples.latent,
        "context": samples.context[:2],
        "context_of": torch.arange(len(samples)) % 2,
        "pooled": samples.pooled[:2],
        "pooled_of": torch.arange(len(samples)) % 2,
        "seed": samples.seed,
    }
    shard = {"file": "00000.safetensors", "samples": len(samples)}
    shape = {"latent": list(samples.latent.shape[1:]), "text_tokens": samples.context.shape[1]}
    folder.mkdir()
    save_file(tensors, folder / "00000.safetensors")
    made_with = json.loads(json.dumps(MADE_WITH))
    tree = {"version": 1, "made_with": made_with, "shards": [shard | shape]}
    (folder / MANIFEST).write_text(json.dumps(tree))


def test_a_folder_of_version_1_is_read_and_goes_on(tmp_path: Path):
    old, new = toy.samples(6, seed=1), toy.samples(4, seed=2)
    write_version_1(tmp_path / "old", old)
    folder = ShardFolder(tmp_path / "old", MADE_WITH)
    before = folder.identity()
    (bucket,) = folder.buckets()
    assert torch.equal(bucket.load(range(6)).context, old.context)
    folder.add(new)
    again = ShardFolder(tmp_path / "old", MADE_WITH)
    assert again.identity(6) == before
    assert json.loads((again.folder / MANIFEST).read_text())["version"] == 2
    (bucket,) = again.buckets()
    loaded = bucket.load(range(10))
    for name in ("latent", "context", "pooled", "seed"):
        both = torch.cat([getattr(old, name), getattr(new, name)])
        assert torch.equal(getattr(loaded, name), both), name


def test_a_folder_of_a_later_version_is_refused(tmp_path: Path):
    ShardFolder(tmp_path, MADE_WITH).add(toy.samples(1))
    manifest = tmp_path / MANIFEST
    manifest.write_text(manifest.read_text().replace('"version": 2', '"version": 3'))
    with pytest.raises(ValueError, match=r"must have version 1 or 2, got '3'"):
        ShardFolder(tmp_path)


def test_other_settings_are_refused_by_name(tmp_path: Path):
    ShardFolder(tmp_path, MADE_WITH).add(toy.samples(1))
    with pytest.raises(ValueError, match=r"made with other settings: steps was 4 and is now 5\."):
        ShardFolder(tmp_path, {**MADE_WITH, "steps": 5})
    assert len(ShardFolder(tmp_path)) == 1  # whoever only reads does not say


def test_a_truncated_manifest_says_what_to_do(tmp_path: Path):
    ShardFolder(tmp_path, MADE_WITH).add(toy.samples(1))
    manifest = tmp_path / MANIFEST
    manifest.write_text(manifest.read_text()[:-9])
    with pytest.raises(
        ValueError, match=r"manifest\.json is damaged .*: delete the folder \S+ to have"
    ):
        ShardFolder(tmp_path, MADE_WITH)


def test_a_folder_without_data_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match="holds no data: it has no manifest"):
        ShardFolder(tmp_path)


def test_pictures_of_different_sizes_never_meet_in_a_batch(tmp_path: Path):
    folder = ShardFolder(tmp_path, MADE_WITH)
    folder.add(toy.samples(8))
    folder.add(toy.samples(8, grid=4))
    batches = Batches(folder, Training(batch_tokens=18))
    # 6 x 6 and 4 x 4 latent pixels are 9 and 4 tokens.
    drawn = {tuple(batches.draw(step).samples.latent.shape) for step in range(40)}
    assert drawn == {(2, 4, 6, 6), (4, 4, 4, 4)}


def test_a_step_draws_the_same_on_every_call_and_another_than_its_neighbour(tmp_path: Path):
    batches = Batches(toy.data(tmp_path), Training(batch=4))
    one, again, other = batches.draw(3), batches.draw(3), batches.draw(4)
    assert torch.equal(one.noise, again.noise)
    assert torch.equal(one.samples.latent, again.samples.latent)
    assert not torch.equal(one.noise, other.noise)
