"""A comparison of many prompts on the command line: rows, a report, sheets."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from comfyui_version import __version__ as host_version
from torch import Tensor
from tqdm import tqdm

from ...compare.config import Candidate, CompareConfig
from ...compare.measurement import Measurement
from ...compare.results import Results
from ...compare.summary import Comparison
from ...compare.table import table
from ...config.bounds import ConfigError
from ...config.prompts import read_prompts
from ...families.block_text import parse_blocks, parse_radii
from ..core.patch import with_window
from ..core.pictures import save_picture
from ..core.settings import WindowSettings
from ..families import require_family
from ..headless import StopOnSignal, load_nodes, run_node
from ..weights.loader import load_onto
from .checks import task_of
from .contestants import Contestant, teacher_of
from .looks import Eyes
from .node import MEASURED, collected, remarks
from .run import Match, Run
from .sheet import sheet_of

NOT_THE_PAPERS = (
    "The paper's table 2 has FID and LPIPS on 5,000 captions, which are not computed here; its "
    "CLIP-I and DINO are 100 x (1 - distance) of such models."
)


def run(config: CompareConfig) -> int:
    """Compare, and return an exit code: 0 done, 1 stopped early."""
    prompts = chosen_prompts(config)
    results = Results(config)
    known = results.open()
    done = require_same_prompts(known, prompts)
    load_nodes()
    stop = StopOnSignal()
    contest = Contest(config, stop)
    waiting = [at for at in prompts if at not in done]
    try:
        with one_bar():
            for at in tqdm(waiting, desc="prompts", initial=len(done), total=len(prompts)):
                results.add(contest.prompt(at, prompts[at]))
                results.report(report(config, contest, results.read()))
    except comfy.model_management.InterruptProcessingException:
        print(f"Stopped; the same command goes on. So far: {results.folder}")
        return 1
    results.report(report(config, contest, results.read()))
    print(f"Written: {results.folder}")
    return 0


@contextmanager
def one_bar() -> Generator[None]:
    """Switch off the host's bar of each sampling: one over all prompts says when all is done."""
    before = comfy.utils.PROGRESS_BAR_ENABLED
    comfy.utils.set_progress_bar_enabled(False)
    try:
        yield
    finally:
        comfy.utils.set_progress_bar_enabled(before)


def chosen_prompts(config: CompareConfig) -> dict[int, str]:
    """Return the prompts to paint by their places in the file, from 0 on."""
    sampling = config.sampling
    prompts = read_prompts(sampling.prompts)
    last = sampling.first + sampling.count if sampling.count else len(prompts)
    chosen = dict(enumerate(prompts[sampling.first : last], sampling.first))
    if not chosen:
        raise ConfigError(
            f"sampling.first must be below the number of prompts, {len(prompts)}, got "
            f"{sampling.first}."
        )
    return chosen


def require_same_prompts(known: Sequence[Measurement], prompts: Mapping[int, str]) -> set[int]:
    """Return which prompts have rows already.

    Raises:
        ConfigError: A row is of another prompt than the file has in its place.
    """
    done: set[int] = set()
    for one in known:
        at = int(one.picture.split(":")[0])
        if prompts.get(at, one.prompt) != one.prompt:
            raise ConfigError(
                f"Prompt {at} must be the one that the rows were measured for, {one.prompt!r}, got "
                f"{prompts[at]!r}. Name another folder as output."
            )
        done.add(at)
    return done & set(prompts)


class Contest:
    """The models, and what each prompt makes of them."""

    def __init__(self, config: CompareConfig, stop: StopOnSignal) -> None:
        self.config, self.stop = config, stop
        self.model: ModelPatcher = run_node(config.loaders["model"])
        require_family(self.model)
        self.clip = run_node(config.loaders["clip"])
        vision = {name: run_node(loader) for name, loader in config.vision.items()}
        self.eyes = Eyes(self.model, run_node(config.loaders["vae"]), vision)
        self.eyes.try_out()
        self.teacher = teacher_of(self.model)
        self.others = [
            Contestant(each.title, model_of(self.model, each)) for each in config.candidates
        ]
        self.negative = self._encoded(config.sampling.negative)
        self.remarks: dict[str, None] = {}

    def prompt(self, at: int, text: str) -> list[Measurement]:
        """Paint a prompt by all models and measure it; the first prompts' sheets are kept."""
        sampling = self.config.sampling
        first = sampling.seed + at * sampling.pictures
        seeds = [first + each for each in range(sampling.pictures)]
        task = task_of(
            self.model,
            self._encoded(text),
            self.negative,
            {"samples": self._empty_latent()},
            steps=sampling.steps,
            cfg=sampling.cfg,
            sampler=sampling.sampler,
            scheduler=sampling.scheduler,
        )
        another = first + sampling.pictures
        label = f"{at}: "
        match = Match(self.teacher, self.others, task, seeds, another, self.eyes, text, label)
        run = Run(match, self._stop_if_asked, tried=bool(self.remarks))
        names = [each.name for each in self.others]
        rows = collected(run, (2 * len(names) + 2) * len(seeds))
        if at - sampling.first < self.config.sheets:
            sheet = sheet_of(rows, self.teacher.name, names, another)
            save_picture(sheet, self.config.output / f"prompt-{at:04}.png")
        self.remarks |= dict.fromkeys([*remarks(run), MEASURED])
        return [one for row in rows for one in row.measurements.values()]

    def _encoded(self, text: str) -> Any:
        tokens = self.clip.tokenize(text)
        guidance = {"guidance": self.config.sampling.guidance}
        return self.clip.encode_from_tokens_scheduled(tokens, add_dict=guidance)

    def _empty_latent(self) -> Tensor:
        sampling = self.config.sampling
        channels = self.model.get_model_object("latent_format").latent_channels
        latent_px = require_family(self.model).data.latent_px
        return torch.zeros(1, channels, sampling.height // latent_px, sampling.width // latent_px)

    def _stop_if_asked(self, *_: Any) -> None:
        if self.stop.asked():
            raise comfy.model_management.InterruptProcessingException
        comfy.model_management.throw_exception_if_processing_interrupted()


def model_of(model: ModelPatcher, candidate: Candidate) -> ModelPatcher:
    """Return a candidate's model."""
    if candidate.file:
        return load_onto(model, candidate.file, candidate.strength, candidate.radius or None)
    local = WindowSettings(
        candidate.radius,
        pool_factor=candidate.pool_factor,
        start_percent=candidate.start_percent,
        end_percent=candidate.end_percent,
        dense_blocks=parse_blocks(candidate.dense_blocks, "Dense blocks"),
        radii=parse_radii(candidate.radii, "The radii per block"),
    )
    return with_window(model, local)


def report(config: CompareConfig, contest: Contest, measured: Sequence[Measurement]) -> str:
    """Write the report: what was compared where, the means with their errors, what failed."""
    sampling = config.sampling
    device = comfy.model_management.get_torch_device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    prompts = len({one.picture.split(":")[0] for one in measured})
    model = ", ".join(str(value) for value in config.loaders["model"].values())
    lines = [
        "# CLEAR compared with full attention",
        "",
        f"{prompts} prompts of `{sampling.prompts.name}`, {sampling.pictures} picture"
        f"{'s' * (sampling.pictures != 1)} each, {sampling.width} x {sampling.height} pixels, "
        f"seeds from {sampling.seed}; {sampling.steps} steps, {sampling.sampler}, "
        f"{sampling.scheduler}, cfg {sampling.cfg:g}, guidance {sampling.guidance:g}.",
        "",
        f"{model}; {device.type} ({name}), torch {torch.__version__}, ComfyUI {host_version}, "
        f"{datetime.date.today()}.",
        "",
        table(Comparison(tuple(measured), contest.teacher.name)),
        "",
        "Behind ± stands the standard error of the mean over pictures, all of the same prompts and "
        "seeds. *Of two seeds* is a distance as a share of that to another seed's picture.",
        "",
        *contest.remarks,
        *([NOT_THE_PAPERS] if config.vision else []),
    ]
    return "\n".join(lines) + "\n"
