"""ControlNets: a local FLUX ControlNet against a full one, and what is added to a whole step.

    python3 benchmarks/cpu/controlnet.py

Three tables: a narrow FLUX ControlNet in InstantX's layout alone; the demo's model with the demo's
ControlNet, through the host's own sampler; and, counted, what published ControlNets add to a step
of FLUX.1 at 8192 pixels. Local results are checked against the reference backend before anything is
timed. Times are processor seconds of one thread, which other work on the machine disturbs little.

Memory is kept between calls, as a GPU's allocator does. By default Linux hands out tensors of more
than 32 MiB page by page, anew each time: 192 x 192 tokens then took 3.1 seconds in place of 2.4,
and the exponent was 1.15.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import math
import sys
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.cpu.controlnet_count import counted
from benchmarks.cpu.host import PROMPT, import_host
from tools.environment import reexec_in_venv

RADIUS, TEXT = 8, 64
GRIDS = (64, 96, 128, 192)
DENSE_UP_TO = 128  # a full net takes a minute for one call beyond
EDGES_PX = (1024, 2048)
CHECKED_GRID = 32
TOLERANCE = 1e-4  # of the largest residual: float32 rounding through two blocks


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--grids", type=int, nargs="+", default=GRIDS, metavar="TOKENS")
    arguments.add_argument("--edges", type=int, nargs="*", default=EDGES_PX, metavar="PIXELS")
    arguments.add_argument("--rounds", type=int, default=3)
    options = arguments.parse_args()
    host = reexec_in_venv()
    keeps = keep_memory()
    import_host(host, cpu=True, threads=1)
    from benchmarks.results_file import write
    from tools.host import Host

    check()
    kept = "Memory is kept between calls." if keeps else "Memory is not kept between calls."
    parts = [f"ComfyUI {Host(host).version}. Processor seconds of one thread. {kept}"]
    parts.append(alone(options.grids, options.rounds))
    if options.edges:
        parts.append(in_a_step(options.edges, options.rounds))
    parts.append(counted())
    write("controlnet", "\n\n".join(parts))


def keep_memory() -> bool:
    """Let the C library keep what is freed, and return whether it does: glibc only."""
    mmap_threshold, trim_threshold, most = -3, -1, 2**31 - 1
    try:
        options = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(options(mmap_threshold, 2**30) and options(trim_threshold, most))


def narrow_net() -> Any:
    """Build a CONTROL_NET with random weights, from the host's classes."""
    import comfy.controlnet
    import comfy.ops
    import torch
    from comfy.ldm.flux.controlnet import ControlNetFlux

    from demo.nodes.network import required_by_host
    from demo.nodes.sizes import TRAINED

    sizes = {**TRAINED, "depth_single_blocks": 1, "mlp_ratio": 4.0}
    network = ControlNetFlux(
        **{**sizes, **required_by_host()},
        latent_input=True,
        dtype=torch.float32,
        operations=comfy.ops.disable_weight_init,
    )
    draw = torch.Generator().manual_seed(0)
    for name, weight in network.named_parameters():
        values = torch.randn(weight.shape, generator=draw) / weight[0].numel() ** 0.5
        weight.data.copy_(torch.ones_like(weight) if "norm" in name else values)
    cpu = torch.device("cpu")
    return comfy.controlnet.ControlNet(
        network.eval(), compression_ratio=1, load_device=cpu, extra_conds=["y", "guidance"]
    )


def local(net: Any, **changes: Any) -> Any:
    """Return the net behind a window."""
    from clear_attention.comfyui.controlnet.node import with_local_attention
    from clear_attention.comfyui.controlnet.settings import ControlSettings

    settings = dataclasses.replace(ControlSettings(RADIUS), **changes)
    return with_local_attention(net, settings)


def ask(net: Any, grid: int) -> tuple[Any, float]:
    """Call a net once and return its residuals and how long it took."""
    import comfy.model_sampling
    import torch

    from demo.nodes.sizes import POOLED_DIM, TEXT_DIM

    draw = torch.Generator().manual_seed(1)
    x, hint = (torch.randn(1, 16, 2 * grid, 2 * grid, generator=draw) for _ in range(2))
    cond = {
        "c_crossattn": torch.randn(1, TEXT, TEXT_DIM, generator=draw),
        "y": torch.randn(1, POOLED_DIM, generator=draw),
        "guidance": torch.full((1,), 3.5),
    }
    net = net.copy().set_cond_hint(hint)
    flow = type("Flow", (comfy.model_sampling.ModelSamplingFlux, comfy.model_sampling.CONST), {})
    net.model_sampling_current = flow()
    with torch.inference_mode():
        start = time.process_time()
        control = net.get_control(x, torch.tensor([0.7]), cond, 1, {})
        return control, time.process_time() - start


def check() -> None:
    """Refuse to time a result that differs from the reference backend's."""
    net = narrow_net()
    fast, _ = ask(local(net, backend="tiled"), CHECKED_GRID)
    exact, _ = ask(local(net, backend="reference"), CHECKED_GRID)
    for kind in ("input", "output"):
        for one, other in zip(fast[kind], exact[kind], strict=True):
            error = float((one - other).abs().max() / other.abs().max())
            if not error <= TOLERANCE:
                raise SystemExit(f"{kind} residuals differ from the reference by {error:.2g}.")


def alone(grids: list[int], rounds: int) -> str:
    """Time the net by itself."""
    net, window, grids = narrow_net(), local(narrow_net()), sorted(grids)
    lines = [
        f"**A ControlNet alone**: InstantX's layout, 1 double and 1 single block, 2 heads x 128, "
        f"float32, {TEXT} text tokens, r = {RADIUS}.",
        "",
        "| tokens | full | CLEAR | faster |",
        "|---|---|---|---|",
    ]
    best: dict[str, list[float]] = {"full": [], "clear": []}
    for grid in grids:
        clear = min(ask(window, grid)[1] for _ in range(rounds))
        full = math.nan
        if grid <= DENSE_UP_TO:
            full = min(ask(net, grid)[1] for _ in range(rounds))
            best["full"].append(full)
        best["clear"].append(clear)
        told = ("-", "-") if math.isnan(full) else (f"{full:.2f}", f"{full / clear:.1f} x")
        lines.append(f"| {grid} x {grid} | {told[0]} | {clear:.2f} | {told[1]} |")
        print(lines[-1], file=sys.stderr, flush=True)
    told = [
        f"{way} {exponent(grids, times):.2f} ({grids[0]} to {grids[len(times) - 1]})"
        for way, times in best.items()
        if len(times) > 1
    ]
    return "\n".join([*lines, "", f"Exponent of time against tokens: {', '.join(told)}."])


def exponent(grids: list[int], times: list[float]) -> float:
    """Return how time grows from the first to the last size that was timed."""
    tokens = (grids[len(times) - 1] / grids[0]) ** 2
    return math.log(times[-1] / times[0]) / math.log(tokens)


def in_a_step(edges: list[int], rounds: int) -> str:
    """Time whole steps of the demo's model with its ControlNet."""
    from clear_attention.comfyui.core.patch import with_window
    from clear_attention.comfyui.core.settings import WindowSettings
    from demo.nodes.control import load_control_net
    from demo.nodes.network import load_model

    model, net = with_window(load_model(), WindowSettings(RADIUS)), load_control_net()
    ways = {
        "no net": None,
        "full net": net,
        "CLEAR": local(net, radius=0),
        "CLEAR, every 2": local(net, radius=0, every=2),
    }
    lines = [
        f"**A whole step**: the demo's model (1 double and 4 single blocks) behind CLEAR, r = "
        f"{RADIUS}, with the demo's ControlNet (1 double block); in brackets what the net adds.",
        "",
        "| pixels | " + " | ".join(ways) + " |",
        "|---" * (len(ways) + 1) + "|",
    ]
    for edge in edges:
        times = [min(step(model, way, edge) for _ in range(rounds)) for way in ways.values()]
        cells = [f"{time:.2f} (+{100 * (time / times[0] - 1):.0f} %)" for time in times[1:]]
        lines.append(f"| {edge} x {edge} | " + " | ".join([f"{times[0]:.2f}", *cells]) + " |")
        print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines)


def step(model: Any, net: Any, edge: int) -> float:
    """Return how long one of two steps takes, the first of a run left out."""
    import comfy.sample
    import torch

    from demo.nodes.text import DemoCLIP

    clip = DemoCLIP()
    ((context, extra),) = clip.encode_from_tokens_scheduled(clip.tokenize(PROMPT))
    extra["guidance"] = 3.5
    latent = torch.zeros(1, 16, edge // 8, edge // 8)
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(0))
    if net is not None:
        net = net.copy()
        net.latent_format = None  # shown latents as they are, so that no VAE is timed
        net.set_cond_hint(noise)
        extra["control"] = net
    positive, ends = [[context, extra]], [0.0]
    with torch.inference_mode():
        comfy.sample.sample(
            *(model, noise, 3, 1.0, "euler", "simple", positive, positive, latent),
            callback=lambda *_: ends.append(time.process_time()),
            disable_pbar=True,
            seed=0,
        )
    return (ends[3] - ends[1]) / 2


if __name__ == "__main__":
    main()
