"""Run long series in a real ComfyUI and see that memory, open files and threads stay as they are.

CLEAR Upscale and a ControlNet that keeps residuals, each with random interrupts, and a distillation
that is interrupted and goes on; then what was painted before is painted again, and must be equal to
the bit. Linux only: it reads /proc. Argument: a factor on the numbers of runs, by default 1.
"""

from __future__ import annotations

import functools
import random
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.environment import reexec_in_venv

UPSCALES, CONTROLNETS, DISTILLATIONS = 25, 50, 3
STEPS = 12  # of a distillation
WARM = 5  # runs after which a series counts: allocators and caches have what they need
MORE = (64 << 20, 4, 4)  # bytes, files and threads that still count as flat

Prompt = dict[str, dict[str, Any]]


class Held(NamedTuple):
    """What the server's process holds.

    Attributes:
        memory: Resident, in bytes.
        files: Open ones.
        threads: Running.
    """

    memory: int
    files: int
    threads: int

    @classmethod
    def by(cls, process: int) -> Held:
        """Read what a process holds."""
        folder = Path(f"/proc/{process}")
        lines = (folder / "status").read_text().splitlines()
        status = dict(line.split(":", 1) for line in lines if ":" in line)
        memory = int(status["VmRSS"].split()[0]) << 10
        return cls(memory, len(list((folder / "fd").iterdir())), int(status["Threads"]))

    def __str__(self) -> str:
        return f"{self.memory >> 20} MiB, {self.files} files, {self.threads} threads"


@dataclass(frozen=True)
class Series:
    """Runs of one kind.

    Attributes:
        name: For the table.
        count: Runs.
        prompt: Makes the prompt of a seed.
        interrupts: Share of runs that are interrupted.
    """

    name: str
    count: int
    prompt: Callable[[int], Prompt]
    interrupts: float = 0.5


def main(factor: float) -> int:
    """Run all series; return 0 if everything is flat and equal."""
    host = reexec_in_venv()
    from demo.install import write_models
    from tools.server import Server

    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        write_models(base)
        with Server(host, base, environment={"OMP_NUM_THREADS": "1"}) as server:
            return Soak(server, factor).run()


class Soak:
    """The series on one server.

    Attributes:
        failures: What was not flat or not equal.
    """

    def __init__(self, server: Any, factor: float) -> None:
        self.server, self.factor = server, factor
        self.draw = random.Random(0)
        self.failures: list[str] = []
        self.process = server._process.pid
        info = server.object_info()
        self.prompts = {name: prompt_of(name, info) for name in ("upscale", "controlnet")}

    def run(self) -> int:
        """Run all series, and the pictures before and after them."""
        before = {name: self.picture(name) for name in self.prompts}
        print(f"before: {Held.by(self.process)}", flush=True)
        for name, count in (("upscale", UPSCALES), ("controlnet", CONTROLNETS)):
            runs = max(WARM + 2, round(count * self.factor))
            self.follow(Series(name, runs, functools.partial(seeded, self.prompts[name])))
        runs = max(2, round(DISTILLATIONS * self.factor))
        self.follow(Series("distill", runs, self.distillation, interrupts=1.0))
        for name, picture in before.items():
            if self.picture(name) != picture:
                self.failures.append(f"{name}: the picture is another one than before")
            else:
                print(f"{name}: the picture is the one from before, to the bit", flush=True)
        print("\n".join(self.failures) or "flat", flush=True)
        return bool(self.failures)

    def picture(self, name: str) -> bytes:
        """Paint a picture of a fixed seed, whatever the host and CLEAR Upscale have kept."""
        prompt = seeded(self.prompts[name], 1)
        for entry in prompt.values():  # another model object: neither cache knows it
            if entry["class_type"] == "CLEARLoader":
                entry["inputs"]["strength"] = 0.5
        self.server.run(prompt)
        prompt = seeded(self.prompts[name], 1)
        found = self.server.images(self.server.run(prompt))[-1]
        from PIL import Image

        with Image.open(found) as image:
            if "kept from an earlier run" in image.info["prompt"]:
                self.failures.append(f"{name}: the picture came from a cache")
            return image.tobytes()

    def follow(self, series: Series) -> None:
        """Run a series; note what the process holds after each run."""
        held, interrupted = [], 0
        for number in range(series.count):
            interrupted += self.once(series, number)
            held.append(Held.by(self.process))
            print(f"{series.name} {number + 1}: {held[-1]}", flush=True)
        warm = min(WARM, len(held) // 3)
        first, last = held[warm], held[-1]
        print(f"{series.name}: {series.count} runs, {interrupted} of them interrupted", flush=True)
        print(f"  after run {warm + 1}: {first}\n  after run {len(held)}: {last}", flush=True)
        for what, allowed in zip(Held._fields, MORE, strict=True):
            if getattr(last, what) - getattr(first, what) > allowed:
                self.failures.append(f"{series.name}: more {what} than after run {warm + 1}")

    def once(self, series: Series, number: int) -> bool:
        """Run a prompt, and interrupt it at a random step; return whether that happened."""
        from tools.server import ServerError

        stop = self.draw.random() < series.interrupts
        share = self.draw.uniform(0.1, 0.9)

        def interrupt(_: str, done: int, of: int) -> None:
            trains = series.name != "distill" or of == STEPS  # its data is not trained on yet
            if stop and trains and done >= share * of:
                self.server.interrupt()

        try:
            self.server.run(series.prompt(100 + number), on_progress=interrupt)
        except ServerError as error:
            if "interrupted" not in str(error):
                raise
            if series.name == "distill":  # queued again, it goes on
                self.server.run(series.prompt(100 + number))
            return True
        return False

    def distillation(self, seed: int) -> Prompt:
        """Return a prompt that distils the demo's model."""
        loaders = ("CLEARDemoUNETLoader", "CLEARDemoDualCLIPLoader")
        found = {entry["class_type"]: at for at, entry in self.prompts["controlnet"].items()}
        inputs = {
            **{"model": [found[loaders[0]], 0], "clip": [found[loaders[1]], 0]},
            **dict(name=f"soak_{seed}", prompts="a red apple\na green tree\na blue sea", seed=seed),
            **dict(radius=2, pool_factor=0, rank=4, steps=STEPS, batch=1, samples=2, width=128),
            **dict(height=128, optimiser="adamw", learning_rate=1e-3, guidance=3.5, cfg=1.0),
        }
        return {
            **{found[kind]: self.prompts["controlnet"][found[kind]] for kind in loaders},
            "distil": {"class_type": "CLEARDistill", "inputs": inputs},
            "name": {"class_type": "PreviewAny", "inputs": {"source": ["distil", 0]}},
        }


def prompt_of(name: str, info: dict[str, Any]) -> Prompt:
    """Return a small prompt of an example workflow."""
    from tools import workflows

    files = {"upscale": "02 Any picture to 4K", "controlnet": "12 Prompt to 4K with a ControlNet"}
    workflow = workflows.load(workflows.FOLDER / f"{files[name]}.json")
    prompt = workflows.to_prompt(workflows.with_demo_models(workflow, shrink=16), info)
    for entry in prompt.values():
        if entry["class_type"] == "CLEARUpscale":
            entry["inputs"] |= dict(
                size=512, steps=6, denoise="0.5, 0.5", vae_tile=256, preset="custom"
            )
        elif entry["class_type"] == "CLEARControlNet":
            entry["inputs"]["every"] = 2
        elif "steps" in entry["inputs"]:
            entry["inputs"]["steps"] = 6
    return prompt


def seeded(prompt: Prompt, seed: int) -> Prompt:
    """Return a prompt with this seed wherever it has one."""
    return {
        at: {
            **entry,
            "inputs": {
                name: seed if name in ("seed", "noise_seed") else value
                for name, value in entry["inputs"].items()
            },
        }
        for at, entry in prompt.items()
    }


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0))
