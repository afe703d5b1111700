"""Parts of data that several processes add to: dealt out evenly, one folder in the end."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

import toy

from clear_attention.distill.data.parts import ALONE, Share, take_in
from clear_attention.distill.data.shards import MANIFEST, Samples, ShardFolder

MADE_WITH = {"steps": 4}
PIECES = list(range(7))


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files of a folder by their names."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def piece(number: int) -> Samples:
    """Return the samples of a piece of work, with seeds of their own."""
    found = toy.samples(2, seed=number % 2)  # two pieces may have the same texts
    return Samples(found.latent, found.context, found.pooled, found.seed + 2 * number)


def make(folder: Path, share: Share, pieces=PIECES) -> None:
    """Do a process's share of the pieces, or the first ones of it."""
    part = share.part_of(ShardFolder(folder, MADE_WITH))
    for number in share.of(pieces, cost=lambda number: 1):
        share.add(part, piece(number), 10 * number)


@pytest.fixture
def alone(tmp_path: Path) -> dict[str, bytes]:
    """What one process makes."""
    make(tmp_path / "alone", ALONE)
    return contents(tmp_path / "alone")


@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_several_processes_leave_the_folder_of_one_to_the_bit(count, alone, tmp_path: Path):
    folder = tmp_path / "several"
    for index in reversed(range(count)):  # whichever is ready first
        make(folder, Share(index, count))
    take_in(folder)
    assert contents(folder) == alone
    assert not list(folder.glob("part-*"))


def test_what_a_process_left_that_died_is_taken_in_by_the_next_run(alone, tmp_path: Path):
    folder = tmp_path / "several"
    make(folder, Share(0, 2))
    make(folder, Share(1, 2), pieces=PIECES[:4])  # and no further
    (folder / "part-7").mkdir()  # not even a manifest
    take_in(folder)
    data = ShardFolder(folder, MADE_WITH)
    missing = [number for number in PIECES if 2 * number not in data.seeds()]
    assert missing == [5]
    for number in missing:
        data.add(piece(number))
    whole = ShardFolder(tmp_path / "alone", MADE_WITH)
    assert len(data) == len(whole) and data.seeds() == whole.seeds()
    assert not list(folder.glob("part-*"))


@pytest.mark.parametrize("at", ["before the manifest", "after it"])
def test_a_kill_while_parts_are_taken_in_loses_and_doubles_nothing(
    at, alone, tmp_path: Path, monkeypatch
):
    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    def kill_at_a_part(path: Path, **given: bool) -> None:
        if Path(path).name.startswith("part-"):
            next(Path(path).glob("*.safetensors")).unlink()  # on its way through the folder
            raise Killed
        rmtree(path, **given)

    rmtree = shutil.rmtree
    folder = tmp_path / "several"
    for index in range(2):
        make(folder, Share(index, 2))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        if at == "after it":
            patch.setattr(shutil, "rmtree", kill_at_a_part)
        else:
            patch.setattr(ShardFolder, "_write_manifest", kill)
        take_in(folder)
    assert len(list(folder.glob("part-*"))) == 2
    take_in(folder)
    assert contents(folder) == alone


def test_a_disk_without_links_gets_copies(alone, tmp_path: Path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refuse)
    folder = tmp_path / "several"
    for index in range(2):
        make(folder, Share(index, 2))
    take_in(folder)
    assert contents(folder) == alone


def test_a_part_of_other_settings_is_refused(tmp_path: Path):
    make(tmp_path, ALONE)
    part = ShardFolder(tmp_path / "part-0", {"steps": 5})
    part.add(piece(9))
    with pytest.raises(ValueError, match=r"made with other settings: steps was 4 and is now 5"):
        take_in(tmp_path)
    assert (tmp_path / "part-0" / MANIFEST).exists()


def test_every_piece_is_dealt_once_and_the_dear_ones_evenly():
    costs = [1, 4, 1, 4, 1, 4, 1, 4, 16]
    shares = [Share(index, 3).of(range(9), costs.__getitem__) for index in range(3)]
    assert sorted(number for share in shares for number in share) == list(range(9))
    assert all(share == sorted(share) for share in shares)
    took = [sum(costs[number] for number in share) for share in shares]
    assert max(took) - min(took) <= max(costs)
    assert [len(Share(index, 2).of([7], lambda _: 1)) for index in range(2)] == [1, 0]
    assert [len(Share(index, 2).from_behind().of([7], lambda _: 1)) for index in range(2)] == [0, 1]
