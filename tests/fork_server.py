"""Processes of tests as forks of one that has imported what they need, which takes longest.

A fork runs a script or a module as ``python`` does, with arguments, environment and folder of its
own. Only a process of its own shows what a program imports, and when.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class ForkServer:
    """A process that imports modules and then forks: ``with ForkServer("torch") as server``.

    Args:
        modules: Names of what it imports before the first fork.
        path: Folders to find them in.
        environment: Of the server, beside this process's; forks start with it.
    """

    def __init__(
        self,
        *modules: str,
        path: Sequence[Path] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.modules, self.path = modules, [str(folder) for folder in path]
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
        self._forks: list[Fork] = []

    def __enter__(self) -> ForkServer:
        command = [sys.executable, __file__, json.dumps(self.path), *self.modules]
        self._process = subprocess.Popen(
            command, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        for fork in self._forks:
            if fork.poll() is None:
                fork.send_signal(signal.SIGKILL)
                fork.wait()
        self._process.communicate()
        assert self._process.returncode == 0

    def start(
        self,
        *command: object,
        output: Path,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Fork:
        """Start a fork.

        Args:
            command: What stands behind ``python``: a script, or ``-m`` and a module; arguments.
            output: File that gets what it prints; errors go into one beside it.
            folder: Where it works; by default where this process does.
            environment: Variables beside the server's.
        """
        request = dict(
            command=[str(part) for part in command],
            output=str(output),
            folder=str(folder or Path.cwd()),
            environment=dict(environment or {}),
        )
        pid = self.ask(request)
        assert pid is not None
        self._forks.append(Fork(self, pid, output))
        return self._forks[-1]

    def ask(self, request: Mapping[str, Any]) -> int | None:
        """Send a request to the process, and return its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@dataclass
class Fork:
    """A process that was started.

    Attributes:
        server: Its parent.
        pid: Its number.
        output_file: What it has printed.
        returncode: Its exit status as subprocess has it; None while it runs, as far as known.
    """

    server: ForkServer = field(repr=False)
    pid: int
    output_file: Path
    returncode: int | None = None

    def poll(self) -> int | None:
        """Return its exit status, or None while it runs."""
        if self.returncode is None:
            self.returncode = self.server.ask({"poll": self.pid})
        return self.returncode

    def wait(self, seconds: float = 600) -> int:
        """Wait until it ends, and return its exit status."""
        latest = time.monotonic() + seconds
        while self.poll() is None:
            if time.monotonic() > latest:
                raise TimeoutError(f"It must end within {seconds} s. Its errors:\n{self.errors}")
            time.sleep(0.02)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def communicate(self) -> tuple[str, str]:
        """Wait until it ends, and return what it has printed and its errors."""
        self.wait()
        return self.output, self.errors

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self.output_file.read_text(encoding="utf-8")

    @property
    def errors(self) -> str:
        """What it has written to stderr so far."""
        return beside(self.output_file).read_text(encoding="utf-8")


def beside(output: Path) -> Path:
    """Return the file of a fork's errors."""
    return output.with_name(output.name + ".errors")


def serve(modules: Sequence[str]) -> None:
    """Import modules; then answer each line of JSON with the number of a fork, or its status."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever modules print is no answer
    for name in modules:
        importlib.import_module(name)
    sys.stdout.flush()  # or each fork would print it again
    for line in sys.stdin:
        request = json.loads(line)
        answer = status_of(request["poll"]) if "poll" in request else forked(**request)
        print(json.dumps(answer), file=answers, flush=True)


def status_of(pid: int) -> int | None:
    """Return the exit status of a fork, or None while it runs."""
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def forked(command: Sequence[str], output: str, folder: str, environment: Mapping[str, str]) -> int:
    """Fork, let the child run a command, and return its number."""
    paths = os.devnull, output, str(beside(Path(output)))
    files = [os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644) for path in paths]
    pid = os.fork()
    if pid == 0:
        for number, file in enumerate(files):
            os.dup2(file, number)
        os.environ.update(environment)
        os.chdir(folder)
        os._exit(run(*command))
    for file in files:
        os.close(file)
    return pid


def run(program: str, *arguments: str) -> int:
    """Run a script, or with ``-m`` a module, and return the exit status."""
    code: object = 0
    try:
        if program == "-m":
            sys.argv = list(arguments)
            sys.path.insert(0, str(Path.cwd()))
            runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv = [program, *arguments]
            sys.path.insert(0, str(Path(program).parent))
            runpy.run_path(program, run_name="__main__")
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else int(code is not None)


if __name__ == "__main__":
    sys.path += json.loads(sys.argv[1])
    serve(sys.argv[2:])
