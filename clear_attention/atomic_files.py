"""Files that are there as a whole or not at all."""

from __future__ import annotations

import errno
import os
import platform
import re
import shutil
import time
import uuid
import zlib
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

ABANDONED_SECONDS = 24 * 60 * 60
"""A temporary file to which nobody wrote for so long belongs to no living process."""

READ_AND_WRITE = 0o666

PART = re.compile(r"\.(?P<machine>[0-9a-f]{8})-(?P<process>\d{1,10})-[0-9a-f]{12}\.part")
# What libraries that are no Python make of the system's error: the number is in their text.
NUMBER = re.compile(r"(?:os error|code:) (\d+)")


class NotWritten(OSError):
    """A file cannot be written; the message names it, and what was there before is intact."""

    __module__ = "clear_attention"  # hosts show it, and packs are loaded under their path

    def __str__(self) -> str:
        return str(self.strerror)  # without the number that errors of the system have in front


@contextmanager
def written_whole(path: Path) -> Generator[Path]:
    """Give a temporary file to write, which takes its place once the ``with`` has ended well.

    What killed processes left of earlier writes of the same file is removed first.

    Raises:
        NotWritten: The disk is full, or refuses for another reason.
    """
    remove_remains(path.parent, re.escape(path.name))
    # A folder: safetensors writes to a temporary file of its own beside the one that it is given.
    folder = path.with_name(f"{path.name}.{_machine()}-{os.getpid()}-{uuid.uuid4().hex[:12]}.part")
    try:
        with named_errors(path):
            folder.mkdir()
            yield folder / "part"
            # As any other file: safetensors makes ones that their owner alone can read.
            (folder / "part").chmod(folder.stat().st_mode & READ_AND_WRITE)
            os.replace(folder / "part", path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_text_whole(path: Path, text: str) -> None:
    """Write a text file in UTF-8 that is there as a whole or not at all.

    Raises:
        NotWritten: The disk is full, or refuses for another reason.
    """
    with written_whole(path) as part:
        part.write_text(text, encoding="utf-8")


def append_whole(path: Path, text: str) -> None:
    """Append text to a file in one write; a failure leaves the file as it was.

    Raises:
        NotWritten: The disk is full, or refuses for another reason.
    """
    with named_errors(path), open(path, "ab", buffering=0) as file:
        before = os.fstat(file.fileno()).st_size
        data = text.encode()
        try:
            if file.write(data) != len(data):  # what a full disk still takes
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            file.truncate(before)
            raise


@contextmanager
def named_errors(path: Path) -> Generator[None]:
    """Turn errors of the file system into one sentence with the file's name.

    Raises:
        NotWritten: In place of them.
    """
    try:
        yield
    except NotWritten:
        raise
    except Exception as error:
        number = _number_of(error)
        if number is None:
            raise
        reason = os.strerror(number) if number else str(error)
        remedy = ": free some space and try again" if number == errno.ENOSPC else ""
        raise NotWritten(
            number, f"{path} cannot be written, {reason}{remedy}. What was there before is intact."
        ) from error


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, unless they are there.

    Raises:
        NotWritten: The disk is full, or refuses for another reason.
    """
    with named_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)


def reason_of(error: Exception) -> str:
    """Return what an error says; of one of the system, without its number and the file's name."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def remove_remains(folder: Path, name: str) -> None:
    """Remove what killed processes left of a file, but nothing that is still written.

    Args:
        folder: Where the file is.
        name: Regular expression for its name.
    """
    with suppress(OSError):  # a folder that is not there holds nothing
        for path in folder.iterdir():
            match = re.fullmatch(f"(?:{name}){PART.pattern}", path.name)
            if match and path.is_dir() and _abandoned(path, match):
                shutil.rmtree(path, ignore_errors=True)


def _abandoned(folder: Path, match: re.Match[str]) -> bool:
    if match["machine"] == _machine() and not _runs(int(match["process"])):
        return True
    written = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    return time.time() - written > ABANDONED_SECONDS


def _machine() -> str:
    """Return a mark of where process numbers count: this machine, or this container on it."""
    namespace = 0
    with suppress(OSError):
        namespace = os.stat("/proc/self/ns/pid").st_ino
    return f"{zlib.crc32(f'{platform.node()} {namespace}'.encode()):08x}"


def _runs(process: int) -> bool:
    """Return whether a process of this machine runs, as far as can be known."""
    if os.name == "nt":
        return True  # there, the call below would end it
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # of another user
    return True


def _number_of(error: Exception) -> int | None:
    """Return the system's number of an error, 0 if it has none; None for another kind of error."""
    if isinstance(error, OSError):
        return error.errno or 0
    found = NUMBER.search(str(error))
    return int(found[1]) if found else None
