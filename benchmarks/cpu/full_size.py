"""A CLEAR file and a FLUX.1 [dev] of full size: time and memory of all that loading does.

    python3 benchmarks/cpu/full_size.py

Writes a file with the published names and shapes, of random bfloat16 numbers, 3.6 GB in a temporary
folder, and builds all 57 blocks in 8-bit floats, 12 GB of which only what is patched is ever
touched. Needs 16 GB of memory. Linux only, where a process's peak can be forgotten.
"""

from __future__ import annotations

import argparse
import gc
import re
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.environment import reexec_in_venv

STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
GIB = 2**30
NAME, WRONG = "clear_full_local_16.safetensors", "clear_wrong_local_16.safetensors"
EXTRACTED, RANK = 4, 64  # projections, all of the first block


@dataclass(frozen=True)
class Step:
    """What one thing took.

    Attributes:
        what: It did.
        seconds: That it took.
        peak: Bytes by which the process grew at most.
        kept: Bytes by which it is larger afterwards.
    """

    what: str
    seconds: float
    peak: int
    kept: int

    def markdown(self) -> str:
        """Return the row of the table."""
        sizes = (f"{size / GIB:.2f}" for size in (self.peak, self.kept))
        return f"| {self.what} | {self.seconds:.2f} | {' | '.join(sizes)} |"


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--folder", type=Path, help="where the file is written; it is removed")
    options = arguments.parse_args()
    host = reexec_in_venv()
    from benchmarks.cpu.host import import_host

    import_host(host, cpu=True, threads=None)
    from benchmarks.results_file import write
    from tools.host import Host

    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        steps, sentence = measure(Path(folder))
    lines = [
        f"ComfyUI {Host(host).version}. A file with the published names and shapes, on FLUX.1 "
        "[dev] in 8-bit floats, random weights.",
        "",
        "| Step | Seconds | GiB at the peak | GiB kept |",
        "|---|---|---|---|",
        *(step.markdown() for step in steps),
        "",
        f"The file with a wrong shape: {sentence}",
    ]
    write("full-size", "\n".join(lines))


def measure(folder: Path) -> tuple[list[Step], str]:
    """Return what each step took, and the sentence about a wrong file."""
    import folder_paths
    import torch

    from benchmarks.gpu.model import FLUX_DEV, empty_model, randomise
    from clear_attention.comfyui.weights.loader import load_onto
    from clear_attention.weights import checkpoint
    from clear_attention.weights.errors import CheckpointError

    folder_paths.folder_names_and_paths["clear"] = ([str(folder)], {".safetensors"})
    steps: list[Step] = []

    def timed(what: str, work: Callable[[], Any]) -> Any:
        gc.collect()
        before, started = resident("VmRSS"), time.perf_counter()
        CLEAR_REFS.write_text("5")  # forget the peak so far
        result = work()
        seconds = time.perf_counter() - started
        peak = max(0, resident("VmHWM") - before)
        steps.append(Step(what, seconds, peak, resident("VmRSS") - before))
        print(steps[-1].markdown(), file=sys.stderr, flush=True)
        return result

    def refuse() -> str:
        try:
            load_onto(model, WRONG)
        except CheckpointError as error:
            return str(error)
        raise AssertionError("A file with a wrong shape must be refused, got a model.")

    timed("writing the file", lambda: write_file(folder / NAME))
    spoil_last_shape(folder / NAME, folder / WRONG)
    cpu = torch.device("cpu")
    model = empty_model(FLUX_DEV, cpu, torch.float8_e4m3fn)
    sentence = timed("refusing a file whose last tensor has a wrong shape", refuse)
    found = timed("reading the header", lambda: checkpoint.read(folder / NAME))
    loaded = timed("Load CLEAR Attention", lambda: load_onto(model, NAME))
    again = timed("a second one with the same file", lambda: load_onto(model, NAME, 0.5))
    assert len(loaded.patches) == len(again.patches) > 0
    keys = list(loaded.patches)
    with torch.inference_mode():
        timed(
            f"patching {len(keys)} tensors of the model",
            lambda: [loaded.patch_weight_to_device(key) for key in keys],
        )
        timed("taking the patches off", loaded.unpatch_model)
    whole = empty_model(FLUX_DEV, cpu, torch.bfloat16)
    randomise(whole.model.diffusion_model.double_blocks[0])
    timed(f"extracting {EXTRACTED} projections at rank {RANK}", lambda: extract_some(whole, found))
    return steps, sentence


def write_file(path: Path) -> None:
    """Write a file with the published names and shapes, of random numbers."""
    import torch

    from benchmarks.gpu.model import FLUX_DEV
    from clear_attention.families.flux import NAMES
    from clear_attention.families.names import ModelSize
    from clear_attention.weights import checkpoint

    blocks = {"double": FLUX_DEV.double_blocks, "single": FLUX_DEV.single_blocks}
    size = ModelSize(FLUX_DEV.hidden, blocks, pool_factor=0)
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name in NAMES.slices(size):
        shape = (size.hidden, size.hidden) if name.endswith("weight") else (size.hidden,)
        tensor = torch.empty(shape, dtype=torch.bfloat16)
        tensors[name] = tensor.normal_(std=size.hidden**-0.5, generator=generator)
    checkpoint.save(path, tensors, radius=16, base="FLUX.1 [dev]")


def spoil_last_shape(path: Path, target: Path) -> None:
    """Write the header of a file anew, its last tensor of another shape; the numbers are a hole."""
    import json

    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    names = [name for name in header if name != "__metadata__"]
    last = max(names, key=lambda name: header[name]["data_offsets"][1])
    shape = header[last]["shape"]
    header[last]["shape"] = [2, *shape[:-1], shape[-1] // 2]
    text = json.dumps(header).encode()
    with open(target, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + header[last]["data_offsets"][1])


def extract_some(model: Any, found: Any) -> object:
    """Extract a few projections, as Extract CLEAR LoRA does all of them."""
    import torch

    from clear_attention.comfyui.weights.base import plain_weights
    from clear_attention.weights import checkpoint
    from clear_attention.weights.extract import extract

    names = [name for name in found.rows if name.endswith("weight")][:EXTRACTED]
    rows = {
        name: place
        for name, place in found.rows.items()
        if name.removesuffix("bias").removesuffix("weight")
        in {chosen.removesuffix("weight") for chosen in names}
    }
    tensors = checkpoint.load(found)
    base = plain_weights(model, rows.values(), "The model")
    clear = {name: tensors[name] for name in rows}
    return extract(found.table, rows, base, clear, rank=RANK, dtype=torch.bfloat16)


def resident(name: str) -> int:
    """Return a resident size of this process in bytes, by its name in Linux's status."""
    line = re.search(rf"{name}:\s+(\d+) kB", STATUS.read_text(encoding="utf-8"))
    assert line is not None
    return int(line[1]) * 1024


if __name__ == "__main__":
    main()
