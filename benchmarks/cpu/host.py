"""A whole sampling step in ComfyUI, full attention against CLEAR, on the demo's small FLUX.

    python3 benchmarks/cpu/host.py

No server: the host's own sampler runs in this process. Full attention is PyTorch's, which is the
fastest that ComfyUI has on a CPU. Both ways are checked before they are timed, and timed in turns;
a time is the best of all steps after the first of a run, which also moves weights.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.environment import reexec_in_venv

RADIUS = 8
EDGES_PX = (512, 1024, 2048)
PROMPT = "a lighthouse on a rocky cliff at sunset"
TOKEN_PX = 16
TOLERANCE = 1e-4  # of a latent of unit variance: float32 rounding through six layers


@dataclass(frozen=True)
class Row:
    """What one size costs.

    Attributes:
        edge: Of the picture, in pixels.
        full: Seconds per step with full attention.
        clear: Seconds per step with CLEAR.
        share: Computed pairs over all pairs.
    """

    edge: int
    full: float
    clear: float
    share: float

    def markdown(self) -> str:
        """Return the row of the table."""
        cells = (
            f"{self.edge} x {self.edge}",
            f"{self.full:.3f}",
            f"{self.clear:.3f}",
            f"{self.full / self.clear:.1f} x",
            f"{100 * self.share:.1f} %",
        )
        return "| " + " | ".join(cells) + " |"


def main() -> None:
    options = arguments(__doc__, EDGES_PX, rounds=3).parse_args()
    host = reexec_in_venv()
    import_host(host, options.cpu, options.threads)
    from benchmarks.results_file import write

    write("host", report(host, options.edges, options.rounds))


def arguments(
    description: str | None, edges: tuple[int, ...], rounds: int
) -> argparse.ArgumentParser:
    """Return what a benchmark of whole steps may be asked for.

    Args:
        description: Of the benchmark.
        edges: Of its pictures, in pixels, if nobody asks for others.
        rounds: In each of which all models run once, likewise.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--cpu", action="store_true", help="even where there is a GPU")
    parser.add_argument("--edges", type=int, nargs="+", default=edges, metavar="PIXELS")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--threads", type=int, help="fewer are steadier on a busy machine")
    return parser


def import_host(host: Path, cpu: bool, threads: int | None) -> None:
    """Put the host onto the path, before this repository, and choose its device."""
    import torch

    if threads:
        torch.set_num_threads(threads)

    sys.path.insert(0, str(host))
    import comfy.options

    flags = ["--cpu", "--use-pytorch-cross-attention"]
    arguments, sys.argv = sys.argv, sys.argv[:1]
    if cpu or not torch.cuda.is_available():
        sys.argv += flags
    comfy.options.enable_args_parsing()
    importlib.import_module("comfy.cli_args")  # reads the flags
    sys.argv = arguments


def report(host: Path, edges: list[int], rounds: int) -> str:
    """Return the table as Markdown."""
    from demo.nodes.text import MIN_TOKENS
    from tools.host import Host

    full, clear = models()
    check(clear)
    rows = [row(full, clear, edge, rounds) for edge in edges]
    first, last = rows[0], rows[-1]
    pixels = (last.edge / first.edge) ** 2
    lines = [
        f"ComfyUI {Host(host).version}; the demo's FLUX (1 double and 4 single blocks, 2 heads x "
        f"128), {MIN_TOKENS} text tokens, r = {RADIUS}. Seconds per sampling step.",
        "",
        f"| pixels | full | CLEAR, r = {RADIUS} | faster | pairs computed |",
        "|---|---|---|---|---|",
        *(row.markdown() for row in rows),
    ]
    if len(rows) > 1:
        exponents = (
            math.log(last.full / first.full) / math.log(pixels),
            math.log(last.clear / first.clear) / math.log(pixels),
        )
        lines += [
            "",
            f"Exponent of time against pixels, {first.edge} to {last.edge}: "
            f"full {exponents[0]:.2f}, CLEAR {exponents[1]:.2f}.",
        ]
    return "\n".join(lines)


def models() -> tuple[Any, Any]:
    """Return the demo model with full attention, and with CLEAR."""
    from clear_attention.comfyui.core.patch import with_window
    from clear_attention.comfyui.core.settings import WindowSettings
    from demo.nodes.network import load_model

    full = load_model()
    return full, with_window(full, WindowSettings(RADIUS))


def check(clear: Any) -> None:
    """Refuse to time a result that differs from the reference backend's."""
    import torch

    from clear_attention.comfyui.core.patch import with_window
    from clear_attention.comfyui.core.settings import WindowSettings

    fast, _ = sample(clear, 512, steps=2)
    by_definition = with_window(clear, WindowSettings(RADIUS, backend="reference"))
    exact, _ = sample(by_definition, 512, steps=2)
    torch.testing.assert_close(fast, exact, atol=TOLERANCE, rtol=TOLERANCE)


def row(full: Any, clear: Any, edge: int, rounds: int) -> Row:
    """Time one size, in turns."""
    from demo.nodes.text import MIN_TOKENS

    best = in_turns(
        {"full": full, "clear": clear}, lambda model: sample(model, edge, steps=3)[1], rounds
    )
    print(f"{edge} x {edge} done", file=sys.stderr)
    return Row(edge, best["full"], best["clear"], share(edge, MIN_TOKENS, RADIUS))


def in_turns(
    models: Mapping[str, Any], ends_of: Callable[[Any], list[float]], rounds: int
) -> dict[str, float]:
    """Return the seconds of each model's fastest step, but for the first one of a run.

    Args:
        models: By name.
        ends_of: Runs a model and returns when each step ended.
        rounds: In each of which all models run once.
    """
    best = dict.fromkeys(models, math.inf)
    for _ in range(rounds):
        for name, model in models.items():
            steps = (end - start for start, end in itertools.pairwise(ends_of(model)))
            best[name] = min(best[name], *steps)
    return best


def sample(model: Any, edge: int, steps: int) -> tuple[Any, list[float]]:
    """Run the host's sampler and return the latent and when each step ended."""
    import torch

    from demo.nodes.text import DemoCLIP

    clip = DemoCLIP()
    positive = clip.encode_from_tokens_scheduled(clip.tokenize(PROMPT), add_dict={"guidance": 3.5})
    noise = torch.randn(1, 16, edge // 8, edge // 8, generator=torch.Generator().manual_seed(0))
    return run_sampler(model, noise, positive, steps)


def run_sampler(model: Any, noise: Any, positive: Any, steps: int) -> tuple[Any, list[float]]:
    """Sample from an empty latent without guidance; return the latent and when each step ended."""
    import comfy.sample
    import torch

    ends: list[float] = []

    def callback(*_: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        ends.append(time.perf_counter())

    with torch.inference_mode():
        out = comfy.sample.sample(
            *(model, noise, steps, 1.0, "euler", "simple", positive, positive),
            torch.zeros_like(noise),
            callback=callback,
            disable_pbar=True,
            seed=0,
        )
    return out, ends


def share(edge: int, text: int, radius: int) -> float:
    """Return the share of the pairs that CLEAR computes.

    Args:
        edge: Of the picture, in pixels.
        text: Tokens of the text.
        radius: Of the window, in tokens of 16 pixels.
    """
    from clear_attention import TokenLayout, Window
    from clear_attention.pairs import all_pairs, visible_pairs

    layout = TokenLayout(text, edge // TOKEN_PX, edge // TOKEN_PX)
    return visible_pairs(layout, Window(radius), None) / all_pairs(layout)


if __name__ == "__main__":
    main()
