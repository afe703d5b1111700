"""A whole cascade to 4096 pixels with CLEAR, and what full attention would take, on the demo model.

    python3 benchmarks/cpu/upscale.py

The demo's FLUX paints 1024 pixels, CLEAR Upscale makes 4096 of them with its default settings, VAE
included. Then single steps of each stage's size are timed both ways. A full step that would take
too long is extrapolated from the two largest measured ones, as a + b N^2 of their N tokens, and
marked as such.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.cpu.host import PROMPT, RADIUS, TOKEN_PX, import_host, models, sample
from benchmarks.cpu.low_memory import peak_bytes
from tools.environment import reexec_in_venv

FIRST_PX, SIZE_PX = 1024, 4096
STEP_EDGES_PX = (1024, 2048, 4096, 8192)
FULL_UP_TO_PX = 4096
STEPS, DENOISE, GUIDANCE, DECAY, VAE_TILE = 20, "0.7, 0.5", 0.5, 1.0, 1024
GIB = 1 << 30


@dataclass(frozen=True)
class Step:
    """One sampling step of one size.

    Attributes:
        edge: Of the picture, in pixels.
        clear: Seconds with CLEAR.
        full: Seconds with full attention, NaN if they are not known.
        measured: Whether ``full`` is, rather than extrapolated.
    """

    edge: int
    clear: float
    full: float
    measured: bool

    def markdown(self) -> str:
        """Return the row of the table."""
        cells = (
            f"{self.edge} x {self.edge}",
            f"{self.clear:.2f}",
            *self._full(),
        )
        return "| " + " | ".join(cells) + " |"

    def _full(self) -> tuple[str, str]:
        if math.isnan(self.full):
            return "-", "-"
        seconds = f"{self.full:.2f}" if self.measured else f"{self.full:.0f} (extrapolated)"
        return seconds, f"{self.full / self.clear:.1f} x"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--size", type=int, default=SIZE_PX, help="of the cascade's result")
    arguments.add_argument("--edges", type=int, nargs="+", default=STEP_EDGES_PX, metavar="PIXELS")
    arguments.add_argument("--full-up-to", type=int, default=FULL_UP_TO_PX, metavar="PIXELS")
    arguments.add_argument("--threads", type=int, help="fewer are steadier on a busy machine")
    arguments.add_argument(
        "--processor-time", action="store_true", help="not the clock's: on a machine in use"
    )
    options = arguments.parse_args()
    host = reexec_in_venv()
    import_host(host, True, options.threads)
    clock = time.process_time if options.processor_time else time.perf_counter
    from benchmarks.results_file import write

    write("upscale", report(options.size, options.edges, options.full_up_to, clock))


def report(size: int, edges: Sequence[int], full_up_to: int, clock: Callable[[], float]) -> str:
    """Return the cascade's sum and the table of steps as Markdown."""
    from demo.nodes.text import MIN_TOKENS

    full, clear = models()
    of_which = "processor time" if clock is time.process_time else "time"
    lines = [
        f"The demo's FLUX (1 double and 4 single blocks, 2 heads x 128) in float32, {MIN_TOKENS} "
        f"text tokens, CLEAR with r = {RADIUS}. Seconds of {of_which}.",
        "",
        cascade(full, clear, size, clock),
        "",
        f"| one step of | CLEAR, r = {RADIUS} | full | faster |",
        "|---|---|---|---|",
        *(step.markdown() for step in steps(full, clear, edges, full_up_to, clock)),
    ]
    return "\n".join(lines)


def cascade(full: Any, clear: Any, size: int, clock: Callable[[], float]) -> str:
    """Paint a small picture, enlarge it, and say what that took."""
    import torch

    from clear_attention.comfyui.upscale.cascade import Painting, Sampling
    from clear_attention.comfyui.upscale.run import PictureSize, upscale
    from demo.nodes.text import DemoCLIP

    clip, codec = DemoCLIP(), vae()
    prompt = clip.encode_from_tokens_scheduled(clip.tokenize(PROMPT), add_dict={"guidance": 3.5})
    sampling = Sampling(
        seed=0,
        cfg=1.0,
        sampler="euler",
        scheduler="simple",
        guidance=GUIDANCE,
        decay=DECAY,
        tile=VAE_TILE,
        scaled=True,
    )
    with torch.inference_mode():
        latent, _ = sample(full, FIRST_PX, STEPS)
        picture = codec.decode(latent)
        started = clock()
        large, _ = upscale(
            Painting(clear, codec, prompt, prompt),
            sampling,
            PictureSize(size, "", DENOISE, STEPS, FIRST_PX),
            picture,
            None,
        )
    _, height, width, _ = large.shape
    return (
        f"CLEAR Upscale from {FIRST_PX} to {width} x {height} pixels, {STEPS} steps, denoise "
        f"{DENOISE}, VAE in tiles of {VAE_TILE}: {clock() - started:.0f} s, largest size of the "
        f"process {peak_bytes() / GIB:.2f} GiB."
    )


def vae() -> Any:
    """Return the demo's VAE, as the host's own loader makes it."""
    import comfy.sd
    import comfy.utils

    from demo.codec.vae_file import write_vae_file

    with tempfile.TemporaryDirectory() as folder:
        return comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(write_vae_file(Path(folder)))))


def steps(
    full: Any, clear: Any, edges: Sequence[int], full_up_to: int, clock: Callable[[], float]
) -> list[Step]:
    """Time a step of each size, both ways in turn, or extrapolate it from smaller ones."""
    done: list[Step] = []
    for edge in sorted(edges):
        seconds = step_seconds(clear, edge, clock)
        measured = edge <= full_up_to
        expected = step_seconds(full, edge, clock) if measured else extrapolated(done, edge)
        done.append(Step(edge, seconds, expected, measured))
        print(f"{edge} x {edge} done", file=sys.stderr)
    return done


def step_seconds(model: Any, edge: int, clock: Callable[[], float]) -> float:
    """Return how long a sampling run of one step takes, after a small one that moves weights."""
    sample(model, TOKEN_PX * 8, steps=1)
    started = clock()
    sample(model, edge, steps=1)
    return clock() - started


def extrapolated(done: Sequence[Step], edge: int) -> float:
    """Return the seconds of a full step as a + b N^2 of its N picture tokens."""
    known = [step for step in done if step.measured][-2:]
    if len(known) < 2:
        return math.nan
    first, second = ((step.edge // TOKEN_PX) ** 4 for step in known)
    slope = (known[1].full - known[0].full) / (second - first)
    return known[1].full + slope * ((edge // TOKEN_PX) ** 4 - second)


if __name__ == "__main__":
    main()
