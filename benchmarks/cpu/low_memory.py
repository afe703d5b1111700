"""Memory of a FLUX model call in slices against whole blocks, on this machine's CPU.

    python3 benchmarks/cpu/low_memory.py

Both ways run CLEAR attention and are checked against each other before anything is measured. Memory
is the growth of a fresh process's peak during one call, after a small call that has made what
libraries keep; it counts in hidden tensors ``[B, L, C]``, which is how it carries over to other
sizes. Times are of one call each and say only that slicing is not slow.
"""

from __future__ import annotations

import argparse
import dataclasses
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.cpu.host import import_host
from tools.environment import reexec_in_venv

HIDDEN, HEADS, TEXT = 1024, 8, 256
RADIUS = 8
GRIDS = (128, 192, 256)
WARM_GRID = 32
CHECKED_GRID, CHECKED_SLICE = 48, 500
TOLERANCE = 1e-5  # of the largest value: float32 rounding through two blocks
TOKEN_PX = 16
MIB = 1 << 20


@dataclass(frozen=True)
class Measured:
    """What one model call costs.

    Attributes:
        extra_bytes: Growth of the peak.
        seconds: Of the call.
        estimate_bytes: What CLEAR Plan and the node count, a sampler's latents included.
    """

    extra_bytes: int
    seconds: float
    estimate_bytes: int


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--child", nargs=2, metavar=("GRID", "WAY"), help="whole or sliced")
    arguments.add_argument("--grids", type=int, nargs="+", default=GRIDS, metavar="TOKENS")
    arguments.add_argument("--threads", type=int, help="fewer are steadier on a busy machine")
    options = arguments.parse_args()
    host = reexec_in_venv()
    import_host(host, True, options.threads)
    if options.child:
        grid, way = options.child
        print(*dataclasses.astuple(measure(int(grid), way == "sliced")))
        return
    from benchmarks.results_file import write

    write("low-memory", report(host, options.grids, options.threads))


def report(host: Path, grids: list[int], threads: int | None) -> str:
    """Return the table as Markdown."""
    from tools.host import Host

    # First, while this process is small: on Linux a child inherits its parent's peak.
    rows = [row(grid, threads) for grid in grids]
    check()
    return "\n".join(
        [
            f"ComfyUI {Host(host).version}; FLUX with 1 double and 1 single block of {HEADS} heads "
            f"x {HIDDEN // HEADS}, float32, {TEXT} text tokens, CLEAR r = {RADIUS}, tiled. In "
            "brackets: hidden tensors (tokens x channels).",
            "",
            "| pixels | whole blocks | CLEAR Low Memory | share | its estimate | seconds, whole | "
            "seconds, sliced |",
            "|---|---|---|---|---|---|---|",
            *rows,
        ]
    )


def row(grid: int, threads: int | None) -> str:
    """Measure one size in both ways and return a row of the table."""
    whole, sliced = (in_child(grid, way, threads) for way in ("whole", "sliced"))
    hidden_bytes = (grid * grid + TEXT) * HIDDEN * 4
    cells = [f"{grid * TOKEN_PX} x {grid * TOKEN_PX}"]
    cells += [
        f"{size / MIB:.0f} MiB ({size / hidden_bytes:.1f})"
        for size in (whole.extra_bytes, sliced.extra_bytes)
    ]
    cells.append(f"{100 * sliced.extra_bytes / whole.extra_bytes:.0f} %")
    cells.append(f"{sliced.estimate_bytes / MIB:.0f} MiB")
    cells += [f"{whole.seconds:.1f}", f"{sliced.seconds:.1f}"]
    print(f"{grid} x {grid} tokens done", file=sys.stderr)
    return "| " + " | ".join(cells) + " |"


def in_child(grid: int, way: str, threads: int | None) -> Measured:
    """Measure where nothing else has raised the peak."""
    command = [sys.executable, __file__, "--child", str(grid), way]
    command += ["--threads", str(threads)] if threads else []
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    extra, seconds, estimate = output.split()[-3:]
    return Measured(int(extra), float(seconds), int(estimate))


def measure(grid: int, sliced: bool) -> Measured:
    """Measure one model call in this process, which has done nothing else."""
    from clear_attention.comfyui.core.patch import settings_of
    from clear_attention.comfyui.memory.estimate import bytes_needed

    model = flux(0 if sliced else None)
    estimate = bytes_needed(model, [1, 16, 2 * grid, 2 * grid], settings_of(model), 0)
    denoised(model, WARM_GRID)
    before, started = peak_bytes(), time.perf_counter()
    denoised(model, grid)
    return Measured(peak_bytes() - before, time.perf_counter() - started, estimate)


def check() -> None:
    """Refuse to report a saving that changes the result."""
    whole, sliced = (denoised(flux(size), CHECKED_GRID) for size in (None, CHECKED_SLICE))
    error = float((whole - sliced).abs().max() / whole.abs().max())
    if not error <= TOLERANCE:
        raise SystemExit(f"Slices change the result by {error:.1e} of its maximum: not measured.")


def flux(slice_tokens: int | None) -> Any:
    """Return a MODEL with CLEAR attention and random weights.

    Args:
        slice_tokens: Of the low memory node, or None to leave it out.
    """
    import comfy.ldm.flux.model
    import comfy.model_patcher
    import comfy.supported_models
    import torch

    from clear_attention.comfyui.core.patch import with_window
    from clear_attention.comfyui.core.settings import WindowSettings
    from clear_attention.comfyui.memory.blocks import with_low_memory

    known = {field.name for field in dataclasses.fields(comfy.ldm.flux.model.FluxParams)}
    sizes: dict[str, Any] = dict(
        in_channels=16,
        out_channels=16,
        vec_in_dim=32,
        context_in_dim=64,
        hidden_size=HIDDEN,
        num_heads=HEADS,
        depth=1,
        depth_single_blocks=1,
        mlp_ratio=4.0,
        axes_dim=[16, 56, 56],
        theta=10000,
        patch_size=2,
        qkv_bias=True,
        guidance_embed=True,
        txt_ids_dims=[],
    )
    given = {key: sizes[key] for key in sizes.keys() & known}
    config = comfy.supported_models.Flux({"image_model": "flux", **given})
    config.set_inference_dtype(torch.float32, None)
    base = config.get_model({})
    generator = torch.Generator().manual_seed(0)
    for weight in base.diffusion_model.parameters():
        torch.nn.init.normal_(weight.data, std=0.02, generator=generator)
    cpu = torch.device("cpu")
    model = comfy.model_patcher.ModelPatcher(base, load_device=cpu, offload_device=cpu)
    model = with_window(model, WindowSettings(RADIUS, backend="tiled"))
    return model if slice_tokens is None else with_low_memory(model, slice_tokens)


def denoised(model: Any, grid: int) -> Any:
    """Return the denoised latent of one model call, from seeded noise."""
    import torch

    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> Any:
        return torch.randn(*shape, generator=generator)

    with torch.inference_mode():
        return model.model.apply_model(
            random(1, 16, 2 * grid, 2 * grid),
            torch.tensor([0.7]),
            c_crossattn=random(1, TEXT, 64),
            y=random(1, 32),
            guidance=torch.tensor([3.5]),
            transformer_options=model.model_options["transformer_options"],
        )


def peak_bytes() -> int:
    """Return the largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main()
