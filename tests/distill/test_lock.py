"""A folder that one run holds: others are refused until it ends, however it does."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest
from filelock import FileLock

from clear_attention.distill.workers.lock import NAME, held

HOLD = """
import sys, time, filelock
lock = filelock.FileLock(sys.argv[1])
lock.acquire()
print(flush=True)
time.sleep(60)
"""


def test_a_folder_is_held_until_the_end_or_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), held(tmp_path, "trains"):
            in_use = "is in use, another run trains there: wait for its end"
            with pytest.raises(ValueError, match=in_use), held(tmp_path, "trains"):
                pass
            raise KeyboardInterrupt


def test_a_process_that_is_killed_holds_nothing(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path / NAME)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        with pytest.raises(ValueError, match="is in use"), held(tmp_path, "trains"):
            pass
        process.kill()
    with held(tmp_path, "trains"):
        pass


@pytest.mark.parametrize("error", [OSError(errno.ENOLCK, "No locks"), NotImplementedError()])
def test_a_disk_without_locks_is_used_without(error, tmp_path, monkeypatch):
    def refuse(lock, **_):
        raise error

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with held(tmp_path, "trains"), held(tmp_path, "trains"):
        pass
