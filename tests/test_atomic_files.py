"""Files are replaced whole: no reader sees half of one, no failure leaves anything behind."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from clear_attention import atomic_files
from clear_attention.atomic_files import NotWritten, make_folder, written_whole

VICTIM = """
import sys, time
from pathlib import Path
from atomic_files import written_whole
with written_whole(Path(sys.argv[1])) as part:
    part.write_text("half")
    print("begun", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def writer():
    """Start processes that have begun to write a file."""
    started: list[subprocess.Popen[str]] = []

    def start(path: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", VICTIM, str(path)]
        # In the package's folder: the package itself imports torch, which takes seconds.
        folder = Path(atomic_files.__file__).parent
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_file_is_replaced_only_once_all_of_it_is_written(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with written_whole(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_whoever_may_read_other_files_may_read_one_of_safetensors(tmp_path: Path):
    (tmp_path / "other").touch()
    with written_whole(tmp_path / "file") as part:
        save_file({"weight": torch.zeros(1)}, part)
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_failure_keeps_the_old_file_and_leaves_no_other(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), written_whole(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_of_one_file_do_not_mix(tmp_path: Path):
    path = tmp_path / "a.txt"
    with written_whole(path) as first, written_whole(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # the last one to end
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_write_left_goes_with_the_next_write_of_that_file(tmp_path: Path, writer):
    path, other = tmp_path / "a+[1].txt", tmp_path / "b.txt"
    for each in (path, other):
        process = writer(each)
        process.kill()
        process.wait()
    assert len(list(tmp_path.iterdir())) == 2
    with written_whole(path) as part:
        part.write_text("new")
    assert path.read_text() == "new"
    (left,) = set(tmp_path.iterdir()) - {path}
    assert left.name.startswith("b.txt.")


def test_what_a_living_process_writes_is_never_removed(tmp_path: Path, writer):
    path = tmp_path / "a.txt"
    writer(path)
    (folder,) = tmp_path.iterdir()
    with written_whole(path) as part:
        part.write_text("new")
    assert [(p.read_text()) for p in folder.iterdir()] == ["half"]


def test_parts_of_another_machine_are_removed_only_after_a_day(tmp_path: Path, writer, monkeypatch):
    path = tmp_path / "a.txt"
    process = writer(path)
    process.kill()
    process.wait()
    (folder,) = tmp_path.iterdir()
    monkeypatch.setattr(atomic_files, "_machine", lambda: "00000000")
    with written_whole(path) as part:
        part.write_text("new")
    assert folder.is_dir()
    day_ago = time.time() - atomic_files.ABANDONED_SECONDS - 60
    os.utime(folder, (day_ago, day_ago))
    with written_whole(path) as part:
        part.write_text("new")
    assert folder.is_dir()  # what is inside is younger
    os.utime(folder / "part", (day_ago, day_ago))
    with written_whole(path) as part:
        part.write_text("new")
    assert list(tmp_path.iterdir()) == [path]


def test_files_of_other_names_are_left_alone(tmp_path: Path):
    names = ["a.txt.part", "a.txt.1.part", "xa.txt.00000000-1-000000000000.part", "a.txt.tmp"]
    for name in names:
        (tmp_path / name).mkdir()
    with written_whole(tmp_path / "a.txt") as part:
        part.write_text("new")
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted([*names, "a.txt"])


def write_text(part: Path) -> None:
    with open(part, "w") as file:
        file.write("x" * 100)
        raise OSError(errno.ENOSPC, "No space left on device")


def write_to_a_full_device(part: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no device that is always full")
    part.symlink_to("/dev/full")
    part.write_text("x" * 100)


def write_by_rust(part: Path) -> None:
    # safetensors has an exception of its own, which is no OSError.
    save_file({"a": torch.zeros(1)}, part.with_name("no such folder") / "a")


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (write_text, "No space left on device: free some space"),
        (write_to_a_full_device, "No space left on device: free some space"),
        (write_by_rust, "No such file or directory"),
    ],
)
def test_an_error_of_the_disk_is_one_sentence_and_keeps_the_old_file(tmp_path, write, reason):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(NotWritten) as error, written_whole(path) as part:
        write(part)
    message = str(error.value)
    assert str(path) in message and reason in message and "intact" in message
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(NotWritten, match=r"^\S+sub cannot be written, Not a directory"):
        make_folder(tmp_path / "file" / "sub")
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")


def test_other_errors_pass_as_they_are(tmp_path: Path):
    with pytest.raises(KeyError), written_whole(tmp_path / "a.txt"):
        raise KeyError("x")
