"""Set up the virtual environment that tests, demo and benchmarks run in.

``.venv`` holds torch and the development tools, and what the default ComfyUI requires. Another
ComfyUI gets its requirements in a thin environment on top (``.venv-<version>``), so that torch is
installed once. Only the standard library is needed to start.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.host import DEFAULT_VERSION, HOSTS, ROOT, Host, fetch_default, users_host

BASE = ROOT / ".venv"
TORCH = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")
NUMPY = "numpy<2.4"  # from 2.4 on, Triton 3.6's interpreter breaks on loops with run-time bounds
TOOLS = (
    "einops",
    "safetensors",
    "pytest>=8",
    "pytest-xdist",
    "hypothesis",
    "playwright",
    "websocket-client",
    "matplotlib",  # the locality probe draws with it; users may go without
    "accelerate",  # the distiller trains with these two; who does not distil goes without
    "prodigyopt",
    "pydantic>=2.7",  # the distiller's command reads settings with it; ComfyUI can run without
    "ray>=2.52; sys_platform == 'linux'",  # starts the workers of CLEAR Cluster; an extra for users
    "requests",  # ComfyUI's server imports it, older releases do not list it
    "ruff==0.17.6",
    "basedpyright==1.40.2",  # pyright as one wheel: nothing is fetched when it first runs
    "import-linter==2.16",
)
OPTIONAL = "#non essential"  # ComfyUI's requirements.txt sets apart with it what it can run without


def reexec_in_venv() -> Path:
    """Set up the venv and host, re-execute the calling script inside, return the host's folder.

    It returns only once inside. Call it first: what a script does before is done twice. From then
    on ``COMFYUI_HOST`` names the host's folder, for child processes too.
    """
    host, home = set_up()
    os.environ["COMFYUI_HOST"] = str(host.folder)
    if Path(sys.prefix).resolve() == home.resolve():
        return host.folder
    command = [str(python_in(home)), *sys.orig_argv[1:]]
    if os.name == "nt":  # there, exec returns to the shell at once and leaves the child behind
        raise SystemExit(subprocess.call(command))
    sys.stdout.flush()
    os.execv(command[0], command)


def set_up() -> tuple[Host, Path]:
    """Bring the environment and the host up to date; quick if they are.

    Returns:
        The host, and the virtual environment that can run it.
    """
    host = users_host()
    with one_at_a_time():
        ensure(BASE, "tools", [*TORCH, NUMPY, *TOOLS])
        host = host or fetch_default(python_in(BASE))
        if host.version == DEFAULT_VERSION:
            ensure(BASE, "host", host.requirements)
            return host, BASE
        home = ROOT / f".venv-{host.version}"
        ensure(home, "host", host.requirements, under=BASE)
        return host, home


def python_in(home: Path) -> Path:
    """Name the interpreter of a virtual environment."""
    return home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def ensure(home: Path, layer: str, wanted: Sequence[str], under: Path | None = None) -> None:
    """Install requirements into an environment unless its stamp says that they are there.

    Args:
        home: The environment; made if it is missing, and made anew if its interpreter is gone or
            an installation into it was cut off.
        layer: What the requirements are, for the stamp and the message.
        wanted: Requirement lines.
        under: Another environment whose packages are visible, and hidden by the ones in ``home``.
    """
    unfinished, stamp = home / "unfinished", home / f"{layer}.stamp"
    asked = digest([*wanted, *(stamps(under) if under else [])])
    if unfinished.exists() or not python_in(home).exists():
        shutil.rmtree(home, ignore_errors=True)
        print(f"Creating {home.name}", flush=True)
        home.mkdir(exist_ok=True)
        unfinished.touch()
        venv.create(home, with_pip=True)
    elif stamp.exists() and stamp.read_text(encoding="utf-8") == asked:
        return
    if under:
        (site_packages(home) / "under.pth").write_text(
            f"{site_packages(under)}\n", encoding="utf-8"
        )
    unfinished.touch()
    try:
        install(home, layer, wanted)
    except SystemExit:
        unfinished.unlink()  # pip has failed and cleaned up; killed, it leaves halves behind
        raise
    write_whole(stamp, asked)
    unfinished.unlink()


def install(home: Path, layer: str, wanted: Sequence[str]) -> None:
    """Install requirement lines; those that a host marks as optional may fail, with a message."""
    needed, optional = split(wanted)
    print(f"Installing {layer} into {home.name}: {', '.join([*needed, *optional])}", flush=True)
    if not pip(home, *needed, *optional):
        return
    if pip(home, *needed):
        raise SystemExit(f"Setting up {home.name} failed: see pip's message above.")
    for requirement in optional:
        if pip(home, requirement):
            print(f"Optional for ComfyUI and not installable here: {requirement}", flush=True)


def split(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part requirement lines into needed and optional ones, without torch's, which are pinned."""
    pinned = {re.split(r"[=<>]", pin)[0] for pin in TORCH}
    needed: list[str] = []
    optional: list[str] = []
    group = needed
    for line in lines:
        if line.lower().startswith(OPTIONAL):
            group = optional
        elif not line.startswith("#") and line not in pinned:
            group.append(line)
    return needed, optional


def pip(home: Path, *requirements: str) -> int:
    """Run ``pip install`` with torch and numpy held in place, and return its exit code."""
    quiet = ("-qq", "--no-input", "--disable-pip-version-check")
    command = [str(python_in(home)), "-m", "pip", "install", *quiet]
    return subprocess.run([*command, *TORCH, NUMPY, *requirements]).returncode


def site_packages(home: Path) -> Path:
    """Find where an environment keeps its packages."""
    ask = "import json, sysconfig; print(json.dumps(sysconfig.get_path('purelib')))"
    answer = subprocess.run([str(python_in(home)), "-c", ask], check=True, capture_output=True)
    return Path(json.loads(answer.stdout))


def stamps(home: Path) -> list[str]:
    """Read what was asked of an environment."""
    return [stamp.read_text(encoding="utf-8") for stamp in sorted(home.glob("*.stamp"))]


def digest(lines: Sequence[str]) -> str:
    """Hash lines into one short word."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there entirely or not at all.

    The library's own writer is out of reach here: before there is an environment, importing its
    package would fail for want of torch.
    """
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


@contextmanager
def one_at_a_time() -> Generator[None]:
    """Hold off other set-ups of this repository; the lock goes with the process."""
    HOSTS.mkdir(exist_ok=True)
    with open(HOSTS / "lock", "w", encoding="utf-8") as file:
        if not try_lock(file.fileno()):
            print("Waiting for another set-up to finish", flush=True)
            while not try_lock(file.fileno()):
                time.sleep(0.5)
        yield


def try_lock(descriptor: int) -> bool:
    """Lock a file if nobody else has; closing it releases the lock."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    print(f"ComfyUI {set_up()[0].folder}")
