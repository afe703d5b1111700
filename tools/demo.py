"""Show CLEAR at work: paint a picture in a real ComfyUI, and time it against full attention.

Needs no GPU and no model: the demo's own tiny network paints (see demo/README.md). Arguments are
further words for the prompt.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.environment import reexec_in_venv
from tools.host import HOSTS, ROOT

OUTPUT = ROOT / "output"
WORKFLOW = "01 Text to image at 2048 pixels.json"
SIZES_PX = ((512, 6), (1024, 4), (2048, 3))  # edge of the picture, steps to time
DECODED_PX = 64  # of the pictures that are only timed: decoding would take longer than the steps
SERVER_OPTIONS = ("--use-pytorch-cross-attention",)  # the host's fastest full attention on CPUs


def main(words: list[str]) -> None:
    """Paint, print where the picture is, and print the comparison."""
    host = reexec_in_venv()
    from demo.install import write_models
    from tools.server import Server

    base = HOSTS / "demo"
    write_models(base)
    print(f"Starting ComfyUI ({host.name}) on the CPU", flush=True)
    with Server(host, base, options=SERVER_OPTIONS) as server:
        demo = Demo(server, " ".join(words))
        picture = demo.paint()
        print(f"\nPicture: {picture}\nIn its metadata: {report_of(picture)}\n", flush=True)
        print_table(demo)


@dataclass(frozen=True)
class Timing:
    """One way to paint at one size.

    Attributes:
        seconds: Of the fastest step.
        pairs: Query-key pairs per head, layer and step; None where the pack was not asked.
        possible: The same of full attention.
    """

    seconds: float
    pairs: int | None
    possible: int | None


class Demo:
    """Paints with the example workflow on a running server."""

    def __init__(self, server: Any, words: str = "") -> None:
        self.server = server
        self.words = words
        self.info = server.object_info()

    def paint(self, size: int = 384, steps: int = 16) -> Path:
        """Paint a picture with CLEAR and put it into ``output``."""
        # Imported here: outside the virtual environment there is no torch, which it needs.
        from clear_attention.atomic_files import written_whole

        found, _ = self.run(size, steps, clear=True, say=f"Painting {size} x {size} pixels")
        OUTPUT.mkdir(exist_ok=True)
        target = OUTPUT / "clear_demo.png"
        with written_whole(target) as part:
            shutil.copyfile(found, part)
        return target

    def time(self, size: int, steps: int, clear: bool) -> Timing:
        """Take the fastest step after the first one, which also prepares the model."""
        way = "CLEAR" if clear else "full attention"
        say = f"Timing {way}, {size} x {size} pixels"
        picture, ends = self.run(size, steps, clear, say, decoded_px=DECODED_PX)
        seconds = min(end - start for start, end in itertools.pairwise(ends))
        counted = re.search(r"\(([\d,]+) of ([\d,]+)\)", report_of(picture))
        pairs, possible = (
            (int(n.replace(",", "")) for n in counted.groups()) if counted else (None,) * 2
        )
        return Timing(seconds, pairs, possible)

    def run(
        self, size: int, steps: int, clear: bool, say: str, decoded_px: int | None = None
    ) -> tuple[Path, list[float]]:
        """Run the workflow and return the picture and when each step ended.

        Args:
            size: Edge of the picture.
            steps: How many to take.
            clear: With CLEAR; without, full attention.
            say: What to print meanwhile.
            decoded_px: Edge of the corner to decode; everything by default.
        """
        from tools import workflows

        workflow = workflows.with_demo_models(workflows.load(workflows.FOLDER / WORKFLOW))
        (latent,) = workflows.nodes_of_type(workflow, "EmptySD3LatentImage")
        (sampler,) = workflows.nodes_of_type(workflow, "KSampler")
        (loader,) = workflows.nodes_of_type(workflow, "CLEARLoader")
        (positions,) = workflows.nodes_of_type(workflow, "CLEARHighRes")
        (text,) = workflows.nodes_of_type(workflow, "CLIPTextEncode")
        latent["widgets_values"][:2] = [size, size]
        sampler["widgets_values"][2] = steps
        positions["mode"] = workflows.BYPASSED  # the picture is no larger than the model knows
        loader["mode"] = 0 if clear else workflows.BYPASSED
        if self.words:
            text["widgets_values"][0] = self.words
        ends: list[float] = []

        def step(_: str, done: int, steps: int) -> None:
            ends.append(time.perf_counter())
            if sys.stdout.isatty():
                print(f"\r{say}: step {done} of {steps}", end="", flush=True)

        print(say, end="", flush=True)
        prompt = workflows.to_prompt(workflow, self.info)
        if decoded_px:
            crop_before_decoding(prompt, decoded_px)
        entry = self.server.run(prompt, on_progress=step)
        print()
        return self.server.images(entry)[0], ends


def crop_before_decoding(prompt: dict[str, dict[str, Any]], edge_px: int) -> None:
    """Let a prompt decode a corner only, where the picture does not matter, and in one piece.

    A decode in tiles reports its progress, as the sampler does.
    """
    (decode,) = (node for node in prompt.values() if node["class_type"].startswith("VAEDecode"))
    corner = {"width": edge_px, "height": edge_px, "x": 0, "y": 0}
    inputs = {"samples": decode["inputs"]["samples"], **corner}
    prompt["corner"] = {"class_type": "LatentCrop", "inputs": inputs}
    whole = {"samples": ["corner", 0], "vae": decode["inputs"]["vae"]}
    decode |= {"class_type": "VAEDecode", "inputs": whole}


def print_table(demo: Demo) -> None:
    """Time both ways at all sizes and print a table."""
    rows = [
        (size, demo.time(size, steps, clear=False), demo.time(size, steps, clear=True))
        for size, steps in SIZES_PX
    ]
    print(f"\n{'':12}{'seconds per step':^26}{'':9}{'pairs per head and layer':^30}")
    print(f"{'pixels':12}{'full':>12}{'CLEAR r=8':>12}{'faster':>9}{'full':>16}{'CLEAR r=8':>14}")
    for size, full, clear in rows:
        times = f"{full.seconds:12.2f}{clear.seconds:12.2f}{full.seconds / clear.seconds:8.1f}x"
        print(f"{f'{size} x {size}':12}{times}{clear.possible or 0:16,}{clear.pairs or 0:14,}")
    print(
        "\nThe fastest step of the demo's tiny network on this CPU, through the whole of ComfyUI."
        "\nFull attention is PyTorch's, the fastest that ComfyUI has on a CPU."
    )


def report_of(picture: Path) -> str:
    """Read what the pack wrote into a picture about its attention."""
    from PIL import Image

    with Image.open(picture) as image:
        prompt = json.loads(image.info["prompt"])
    reports = [node.get("_meta", {}).get("clear_attention") for node in prompt.values()]
    return "; ".join(filter(None, reports))


if __name__ == "__main__":
    main(sys.argv[1:])
