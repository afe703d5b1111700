"""Training data on disk: what is written is read, what is half written does not exist."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

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


def test_prompts_that_samples_share_are_kept_once(tmp_path: Path):
    folder = ShardFolder(tmp_path / "shared", MADE_WITH)
    folder.add(toy.samples(64))  # of two prompts
    apart = toy.samples(64)
    noise = torch.randn(apart.context.shape)
    other = ShardFolder(tmp_path / "apart", MADE_WITH)
    other.add(Samples(apart.latent, noise, apart.pooled, apart.seed))
    size, larger = (
        (path / "00000.safetensors").stat().st_size for path in (folder.folder, other.folder)
    )
    assert larger - size > 0.9 * 62 * noise[0].numel() * 4


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
        ValueError, match=r"manifest\.json is damaged .*: delete its folder to have"
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
