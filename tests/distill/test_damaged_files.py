"""Whatever became of a run's files: each is usable, or one sentence names it."""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

import toy
from fuzz import rounds

from clear_attention.config.prompts import read_prompts
from clear_attention.distill import log
from clear_attention.distill.config_file import read
from clear_attention.distill.data.shards import ShardFolder

ROUNDS = rounds(40)
TOML = """output = "clear.safetensors"
folder = "run"
[generation]
sizes_px = [[64, 96]]
[optimiser]
name = "adamw"
learning_rate = 1e-3
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with every kind of file that is read again."""
    folder = tmp_path_factory.mktemp("run")
    toy.trainer(folder).run()
    (folder / "prompts.txt").write_text("a red apple\nein gr\u00fcner Apfel\n", encoding="utf-8")
    (folder / "run.toml").write_text(TOML, encoding="utf-8")
    return folder


def use_data(folder: Path) -> None:
    data = ShardFolder(folder / "data")
    data.identity()
    for bucket in data.buckets():
        bucket.load(range(len(bucket)))


def resume(folder: Path) -> None:
    trainer = toy.trainer(folder)
    trainer.resume()
    trainer.optimiser.step()


USES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "state": ("run/state-0000012.safetensors", resume),
    "manifest": ("data/manifest.json", use_data),
    "shard": ("data/00001.safetensors", use_data),
    "text": ("data/texts/*/*.safetensors", use_data),
    "log": ("run/log.csv", lambda folder: log.read(folder / "run")),
    "prompts": ("prompts.txt", lambda folder: read_prompts(folder / "prompts.txt")),
    "settings": ("run.toml", lambda folder: read(folder / "run.toml")),
}


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Cut, flip, insert, double or remove bytes, mostly in the first kilobytes."""
    kind = draw.choice(("cut", "flip", "insert", "remove", "repeat", "empty", "digit"))
    at = draw.randrange(min(len(content), draw.choice((16, 4096, len(content)))))
    length = draw.randint(1, 40)
    if kind == "cut":
        return content[:at]
    if kind == "flip":
        return content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :]
    if kind == "insert":
        return content[:at] + draw.randbytes(length) + content[at:]
    if kind == "remove":
        return content[:at] + content[at + length :]
    if kind == "repeat":
        return content[: at + length] + content[at:]
    if kind == "digit":
        places = [n for n, byte in enumerate(content[:9000]) if chr(byte).isdigit()]
        at = draw.choice(places or [0])
        return content[:at] + draw.choice((b"-1", b"99999999999999", b"x", b"")) + content[at + 1 :]
    return b""


@pytest.mark.parametrize("kind", USES)
def test_a_damaged_file_is_usable_or_named_in_a_sentence(kind: str, run: Path, tmp_path: Path):
    name, use = USES[kind]
    folder = tmp_path / "copy"
    shutil.copytree(run, folder)
    path = next(folder.glob(name))
    content, refused = path.read_bytes(), 0
    use(folder)
    for number in range(ROUNDS):
        path.write_bytes(damaged(content, random.Random(f"{kind} {number}")))
        try:
            use(folder)
        except ValueError as error:
            message = str(error)
            assert str(folder) in message or kind == "settings", (number, message)
            assert "\n" not in message, (number, message)
            assert len(message) < 1000, (number, message)
            refused += 1
    assert refused > ROUNDS / 8


def test_a_manifest_names_no_file_outside_of_its_folder(run: Path, tmp_path: Path):
    shutil.copytree(run / "data", tmp_path / "data")
    path = tmp_path / "data" / "manifest.json"
    path.write_text(path.read_text().replace("00001.safetensors", "../00001.safetensors"))
    with pytest.raises(ValueError, match=r"manifest\.json is damaged \(.*\.\./00001"):
        ShardFolder(tmp_path / "data")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("00001.safetensors", "delete the folder"),
        ("texts/*/*.safetensors", "start the run again, with its prompts"),
    ],
)
def test_a_missing_file_of_the_data_is_named(name: str, remedy: str, run: Path, tmp_path: Path):
    shutil.copytree(run / "data", tmp_path / "data")
    path = next((tmp_path / "data").glob(name))
    path.unlink()
    with pytest.raises(ValueError, match=rf"{path.name} is damaged .*: {remedy}"):
        use_data(tmp_path)
