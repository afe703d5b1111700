"""A real ComfyUI server, headless, on a base directory of its own."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import websocket

from tools.answers import ServerError, is_end, parse_progress, refusal, succeeded, tail
from tools.folders import furnish
from tools.host import COMPILED, HOSTS, ROOT, find_host
from tools.patience import Patience, slowdown_by_load

PACKS = {"clear-attention": ROOT, "clear-attention-demo": ROOT / "demo" / "nodes"}
ENVIRONMENT = {
    **COMPILED,
    "PYTHONUTF8": "1",  # its log, on Windows too
    "HF_HUB_OFFLINE": "1",
}

Progress = Callable[[str, int, int], None]
"""Called with a node's id, the steps that it has done, and the steps that it will do."""


class Server:
    """Run ComfyUI for the duration of a ``with`` block, or from ``start()`` to ``stop()``.

    Args:
        host: ComfyUI's folder; by default the one in ``COMFYUI_HOST``, else ``find_host()``.
        base: Base directory with models, input, output and user folders; made if missing. Two
            servers at the same time need two of them. By default ``.host/base``.
        packs: Name in ``custom_nodes`` -> folder of a node pack. By default this repository and
            the nodes of its demo.
        cpu: Run on the CPU even where there is a GPU.
        options: Further options of ComfyUI's command line.
        environment: Environment variables to add for the process.
        start_timeout: Seconds until it must answer; longer on a busy machine.
    """

    def __init__(
        self,
        host: Path | None = None,
        base: Path | None = None,
        *,
        packs: Mapping[str, Path] | None = None,
        cpu: bool = True,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        start_timeout: float = 180,
    ) -> None:
        known = os.environ.get("COMFYUI_HOST")
        self.host = host or (Path(known) if known else find_host().folder)
        self.base = (base or HOSTS / "base").resolve()
        self.packs = PACKS if packs is None else packs
        self.options = [*(["--cpu"] if cpu else []), *options]
        self.environment = dict(environment or {})
        self.start_timeout = start_timeout
        self.client = uuid.uuid4().hex
        self.log_file = self.base / "server.log"
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where it answers, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What it has printed so far."""
        if not self.log_file.exists():
            return ""
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Server:
        """Start the process and wait until it answers."""
        furnish(self.base, self.packs)
        self.port = free_port()
        with open(self.log_file, "wb") as log:
            self._process = subprocess.Popen(
                self._command(),
                cwd=self.base,
                env={**os.environ, **ENVIRONMENT, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        atexit.register(self.stop)
        exit_on_terminate()
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the process; harmless if it has ended."""
        atexit.unregister(self.stop)
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def queue(self, prompt: Mapping[str, Any], extra_data: Mapping[str, Any] | None = None) -> str:
        """Queue a graph in API format and return its id.

        Raises:
            ServerError: A node or an input was refused; the message says which and why.
        """
        body: dict[str, Any] = {"prompt": prompt, "client_id": self.client}
        if extra_data is not None:
            body["extra_data"] = extra_data
        return self.post("/prompt", body)["prompt_id"]

    def wait(
        self, prompt_id: str, on_progress: Progress | None = None, timeout: float = 600
    ) -> dict[str, Any]:
        """Wait for a prompt and return its history entry.

        Raises:
            ServerError: A node failed or was interrupted, or the process died.
            TimeoutError: It took longer than ``timeout`` seconds, or longer than as many that a
                busy machine takes; it goes on running.
        """
        patience, step = Patience(f"prompt {prompt_id} to end", timeout), None
        with contextlib.closing(self._messages(prompt_id)) as messages:
            while True:
                if not self.running:
                    raise ServerError(f"ComfyUI died while it ran a prompt.\n{tail(self.log)}")
                # Behind a step there may be others, which the prompt's end must not cut off.
                entry = None if step else self.get(f"/history/{prompt_id}").get(prompt_id)
                if entry is not None:
                    return succeeded(entry)
                if patience.over:
                    raise TimeoutError(str(patience))
                step = next(messages)
                if step and on_progress:
                    on_progress(*step)

    def run(self, prompt: Mapping[str, Any], **wait: Any) -> dict[str, Any]:
        """Queue a graph, wait for it, and return its history entry."""
        return self.wait(self.queue(prompt), **wait)

    def interrupt(self) -> None:
        """Stop the prompt that runs now."""
        self.post("/interrupt", {})

    def images(self, entry: Mapping[str, Any]) -> list[Path]:
        """List the picture files that a history entry names, in the order of the nodes."""
        pictures = [
            picture for output in entry["outputs"].values() for picture in output.get("images", ())
        ]
        return [self.base / p["type"] / p["subfolder"] / p["filename"] for p in pictures]

    def last_pictures(self) -> list[Path]:
        """List the picture files of the prompt that ended last."""
        (entry,) = self.get("/history?max_items=1").values()
        return self.images(entry)

    def object_info(self, name: str | None = None) -> dict[str, Any]:
        """Describe all node classes by id, or one of them."""
        if name is None:
            return self.get("/object_info")
        return self.get(f"/object_info/{urllib.parse.quote(name)}")[name]

    def get(self, path: str) -> Any:
        """Fetch JSON from the server."""
        return self._request(urllib.request.Request(self.url + path))

    def post(self, path: str, body: Any) -> Any:
        """Send JSON to the server, and return what it answers, parsed; None if it is empty."""
        data, kind = json.dumps(body).encode(), {"Content-Type": "application/json"}
        return self._request(urllib.request.Request(self.url + path, data, kind))

    def _request(self, request: urllib.request.Request) -> Any:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(request, timeout=60 * slowdown_by_load()) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise ServerError(refusal(error.read().decode("utf-8", "replace"))) from None
        return json.loads(text) if text else None

    def _command(self) -> list[str]:
        return [
            *(sys.executable, str(self.host / "main.py")),
            *("--listen", "127.0.0.1", "--port", str(self.port)),
            *("--base-directory", str(self.base)),
            # By default it lies in ComfyUI's own folder, whatever the base directory is.
            *("--database-url", "sqlite:///:memory:"),
            *("--disable-auto-launch", "--disable-api-nodes"),
            *self.options,
        ]

    def _wait_until_ready(self) -> None:
        patience = Patience(f"ComfyUI to answer at {self.url} after its start", self.start_timeout)
        while not patience.over:
            if not self.running:
                raise ServerError(f"ComfyUI did not start.\n{tail(self.log)}")
            try:
                self.get("/system_stats")
            except (OSError, ServerError):
                time.sleep(0.2)
            else:
                return
        raise ServerError(f"{patience} Its log ends:\n{tail(self.log)}")

    def _messages(self, prompt_id: str) -> Generator[tuple[str, int, int] | None]:
        """Yield the steps of a prompt as they are reported, and None at its end and when idle."""
        address = f"ws://127.0.0.1:{self.port}/ws?clientId={self.client}"
        with contextlib.suppress(OSError, websocket.WebSocketConnectionClosedException):
            line = websocket.create_connection(address, timeout=60, http_no_proxy=["*"])
            with contextlib.closing(line):
                line.settimeout(0.5)
                while True:
                    try:
                        message = line.recv()
                    except websocket.WebSocketTimeoutException:
                        yield None
                        continue
                    step = parse_progress(message, prompt_id)
                    if step or is_end(message, prompt_id):
                        yield step
        while True:
            time.sleep(0.5)
            yield None


def exit_on_terminate() -> None:
    """Let SIGTERM end this process by an exception, so that its servers are stopped."""
    ours = threading.current_thread() is threading.main_thread()
    if ours and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def free_port() -> int:
    """Find a port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
