"""The log of a run survives kills and full disks, and says which row is damaged."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from clear_attention.atomic_files import NotWritten
from clear_attention.distill import log
from clear_attention.distill.log import NAME, Log

VALUES = {"loss": 0.125, "gradient": 3.5}
FIRST = [(1, "train", "loss", 0.125), (1, "train", "gradient", 3.5)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Log(tmp_path, 0).add(1, VALUES, "train")
    return tmp_path


def test_a_cut_last_row_is_dropped_with_a_word_wherever_it_is_cut(folder: Path, caplog):
    path = folder / NAME
    whole = path.read_bytes()
    Log(folder, 1).add(2, {"loss": 0.0625}, "train")
    row = path.read_bytes()[len(whole) :]
    for length in range(1, len(row)):
        path.write_bytes(whole + row[:length])
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert log.read(folder) == FIRST
        assert NAME in caplog.text
    path.write_bytes(whole + row[:-1])
    Log(folder, 5).add(3, {"loss": 1.0}, "train")
    assert log.read(folder) == [*FIRST, (3, "train", "loss", 1.0)]


def test_a_log_with_other_line_ends_is_read(folder: Path, caplog):
    path = folder / NAME
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert log.read(folder) == FIRST
    assert not caplog.records


@pytest.mark.parametrize(
    "row",
    [
        b"1,train,loss",
        b"1,train,loss,0.5,6",
        b"one,train,loss,0.5",
        b"1.5,train,loss,0.5",
        b"1,train,loss,",
        b"1,train,loss,0.5x",
        b"\xff\xfe\x00",
        b'"1',
    ],
)
def test_a_damaged_row_is_named(folder: Path, row: bytes):
    path = folder / NAME
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*lines[:2], row, *lines[2:]]))
    for use in (lambda: log.read(folder), lambda: Log(folder, 1)):
        with pytest.raises(ValueError, match=rf"Row 3 of .*{NAME} must be step,kind,name,value"):
            use()
    assert row in path.read_bytes()  # nothing was written over it


def test_a_disk_that_takes_half_a_row_leaves_the_log_as_it_was(folder: Path):
    resource = pytest.importorskip("resource")
    path, opened = folder / NAME, Log(folder, 1)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 7, limits[1]))
    try:
        with pytest.raises(NotWritten, match=rf"{NAME} cannot be written, No space left on device"):
            opened.add(2, VALUES, "train")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    opened.add(2, VALUES, "train")
    assert len(log.read(folder)) == 4
