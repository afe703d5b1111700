"""CLEAR weights on a finetune: replacing its attention against adding what distilling changed.

    python3 benchmarks/cpu/finetune.py

The finetune is the demo's model with its cyanotype LoRA merged into the weights, at full and at
half strength. Compared are its velocities with full attention and with CLEAR, on pictures that it
paints itself for held-out prompts.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.cpu.low_rank import PROMPTS, apart, extract_file, velocities
from demo.students import LORA, STUDENTS, window_name
from tools.environment import reexec_in_venv

if TYPE_CHECKING:
    from torch import Tensor

STRENGTHS = (1.0, 0.5)
RANK = 32
WORD = "cyanotype"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--prompts", type=int, default=PROMPTS)
    arguments.add_argument("--threads", type=int, help="fewer are steadier on a busy machine")
    options = arguments.parse_args()
    host = reexec_in_venv()
    from demo.enter import enter

    enter(host)
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
    from benchmarks.results_file import write

    with tempfile.TemporaryDirectory() as folder:
        tables = [table(strength, options.prompts, Path(folder)) for strength in STRENGTHS]
    write("finetune", "\n\n".join([introduction(options.prompts), *tables]))


def introduction(prompts: int) -> str:
    """Say what the tables are."""
    return (
        "The demo's FLUX with its cyanotype LoRA merged in. Mean squared difference of the "
        f"velocity to the finetune's own full attention, {prompts} held-out prompts at 384 x 384 "
        "pixels, noise levels 0.9, 0.7, 0.5 and 0.3. *No weights*: the window alone; *replaced*: "
        "the CLEAR file in place of the finetune's attention weights; *added*: with the demo's "
        f"model as reference_model; *LoRA*: extracted at rank {RANK}. The last column is the "
        "student without any finetune, against its own teacher."
    )


def table(strength: float, prompts: int, folder: Path) -> str:
    """Compare the ways on one finetune, as Markdown."""
    import folder_paths

    from clear_attention.comfyui.weights.loader import load_onto
    from demo.bench import Bench
    from demo.nodes.network import build_model, load_model

    folder_paths.add_model_folder_path("clear", str(folder))
    plain, bench = Bench(), Bench()
    bench.teacher = build_model(merged(strength))
    bench.prompts = cyanotypes()
    reference = load_model()
    lines = [
        f"LoRA merged at strength {strength:g}:",
        "",
        "| window | no weights | replaced | added | LoRA | not finetuned |",
        "|---|---|---|---|---|---|",
    ]
    for name, (radius, factor) in STUDENTS.items():
        lora, _ = extract_file(name, RANK, folder)
        ways = (
            bench.behind_window(radius, factor),
            lambda model, name=name: load_onto(model, name),
            lambda model, name=name: load_onto(model, name, reference=reference),
            lambda model, name=lora.name: load_onto(model, name),
        )
        full = velocities(bench, lambda model: model, prompts)
        errors = [apart(velocities(bench, way, prompts), full) for way in ways]
        own = velocities(plain, lambda model: model, prompts)
        errors.append(apart(velocities(plain, plain.student(name), prompts), own))
        cells = [window_name(radius, factor), *(f"{error:.4f}" for error in errors)]
        lines.append(f"| {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def merged(strength: float) -> dict[str, Tensor]:
    """Merge the LoRA into the demo's weights."""
    from safetensors.torch import load_file

    from demo.nodes.checkpoint import MODELS, base_weights

    state, lora = base_weights(), load_file(MODELS / LORA)
    for name, weight in state.items():
        layer = f"lora_unet_{name.removesuffix('.weight').replace('.', '_')}"
        if f"{layer}.lora_up.weight" in lora:
            up, down = (lora[f"{layer}.lora_{part}.weight"].float() for part in ("up", "down"))
            scale = strength * float(lora[f"{layer}.alpha"]) / len(down)
            state[name] = (weight.float() + scale * up @ down).to(weight.dtype)
    return state


def cyanotypes() -> list[Any]:
    """Encode the held-out prompts with the finetune's word."""
    from clear_attention.config.prompts import read_prompts
    from clear_attention.distill.config_file import read
    from demo.bench import encoded
    from demo.students import TEACHING

    config = read(TEACHING / "student.toml")
    lines = read_prompts(TEACHING / "prompts.txt")[-config.generation.held_out :]
    return encoded([f"{WORD}, {line}" for line in lines], config.training.guidance)


if __name__ == "__main__":
    main()
