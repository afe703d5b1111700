"""What people read of a plan: the numbers, whether it fits, and what to do if it does not."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ..families.network import Job, Network
from ..layout import TokenLayout
from ..units import gib
from .budget import Budget
from .cost import Cost, Rates, cost
from .devices import Devices, SharedCost, shared_cost
from .devices_table import SizeOnDevices, lines_on_devices
from .machine import Machine
from .rates import measure, with_windows

EDGES_PX = (512, 1024, 2048, 4096, 8192)


@dataclass(frozen=True)
class Plan:
    """What a run will cost, in full and with CLEAR.

    Attributes:
        title: What the model is.
        network: Its dimensions.
        job: One call of it.
        machine: Where it runs.
        rates: Of this machine.
        budget: Its memory.
        steps: Calls of the model in a run.
        token_px: Edge of a token in pixels.
        full: One call with full attention.
        clear: One call with CLEAR, the mean of a run's calls where it is off in some of them.
        slice_tokens: Of the CLEAR Low Memory node on the model, 0 for its automatic choice; None
            without one.
        devices: That share each step.
    """

    title: str
    network: Network
    job: Job
    machine: Machine
    rates: Rates
    budget: Budget
    steps: int
    token_px: int
    full: Cost
    clear: Cost
    slice_tokens: int | None = None
    devices: Devices = field(default_factory=Devices)

    @property
    def sliced(self) -> bool:
        """Whether the model runs in slices already."""
        return self.slice_tokens is not None

    @property
    def local(self) -> Cost:
        """One call in which the window is on."""
        if self.job.local_share == 1:
            return self.clear
        return _cost(self.network, self.job.local(), self.machine, self.rates, self.slice_tokens)

    @property
    def step_memory(self) -> int:
        """Bytes beside the weights that a step with CLEAR takes as the model is."""
        return self.held(self.clear)

    def held(self, cost: Cost) -> int:
        """Return the bytes beside the weights that a call takes as the model is, sliced or not."""
        return cost.sliced_memory if self.sliced else cost.memory

    @property
    def verdict(self) -> str:
        """Say "fits", or what has to be done: "slice", "tile", both, or "too large"."""
        budget, words = self.budget, list[str]()
        if self.step_memory > budget.room:
            if self.clear.sliced_memory > budget.room:
                return "too large"
            words.append("slice")
        if budget.decoding > budget.room:
            words.append("tile")
        return " and ".join(words) or "fits"

    def advice(self) -> list[str]:
        """Return a sentence for each thing to do or to know."""
        budget, lines = self.budget, list[str]()
        if self.verdict == "too large":
            lines.append(
                f"A step needs {gib(self.clear.sliced_memory)} even in slices: take a smaller "
                "picture, or a smaller batch."
            )
        if "slice" in self.verdict:
            lines.append(
                f"Put CLEAR Low Memory behind the model: in slices a step needs about "
                f"{gib(self.clear.sliced_memory)} instead of {gib(self.clear.memory)}."
            )
        if budget.decoding > budget.room:
            lines.append(
                f"Decode with VAE Decode (Tiled): the whole picture would take "
                f"{gib(budget.decoding)}."
            )
        step = self.clear.sliced_memory if "slice" in self.verdict else self.step_memory
        if self.verdict != "too large" and step + budget.weights > budget.available:
            lines.append(
                "Not all weights fit beside a step: ComfyUI will fetch part of them from main "
                "memory in every step, which takes time that is not counted here."
            )
        return lines

    def over_sizes(self) -> dict[int, tuple[Cost, Cost]]:
        """Return the costs of squares by their edge in pixels, in full and with CLEAR."""
        return {edge: (plan.full, plan.clear) for edge, plan in self._squares().items()}

    def at(self, edge: int) -> Plan:
        """Return the plan of a square of so many tokens on a side."""
        job = replace(self.job, layout=TokenLayout(self.job.layout.text, edge, edge))
        rates = with_windows(self.rates, self.network, job, self.machine)
        full, clear = _costs(self.network, job, self.machine, rates, self.slice_tokens)
        return replace(self, job=job, rates=rates, full=full, clear=clear)

    def on_devices(self, job: Job | None = None) -> SharedCost | None:
        """Return the cost of a call that all devices share, None where it is too small for them.

        Args:
            job: Of the planned size, None for the planned call.
        """
        itemsize = self.machine.dtype.itemsize
        return shared_cost(self.network, job or self.job, self.rates, self.devices, itemsize)

    def table(self) -> str:
        """Return the plan as text."""
        layout = self.job.layout
        pooled = f", pooled by {self.job.pool_factor}" if self.job.pooling else ""
        clear = "full"
        if self.network.windows(self.job):
            clear = f"CLEAR r = {self.network.radius_text(self.job)}{pooled}"
        width = max(12, len(clear))
        rows = [("", "full", clear), *self._rows()]
        state = " The model runs in slices already." if self.sliced else ""
        squares = self._squares()
        lines = [
            f"{self.title}; {self.machine.device}, {str(self.machine.dtype).split('.')[-1]}",
            f"{self._size} pixels, batch {self.job.batch}: {layout.text} text + "
            f"{layout.height} x {layout.width} image tokens of {self.token_px} pixels",
            "",
            *(f"{name:34}{full:>12}  {clear:>{width}}" for name, full, clear in rows),
            "",
            f"Weights {gib(self.budget.weights)}, whole VAE decode {gib(self.budget.decoding)}, "
            f"available {gib(self.budget.available)}; ComfyUI sets {gib(self.budget.reserved)} "
            "aside for a step.",
            f"Verdict: {self.verdict}.{state}",
            *self._schedule(),
            *self.advice(),
            "",
            f"{'at other sizes':16}{'seconds per step':>24}{'memory beside the weights':>28}",
            f"{'pixels':16}{'full':>12}{'CLEAR':>12}{'full':>14}{'CLEAR':>14}",
            *(self._size_row(edge, one.full, one.clear) for edge, one in squares.items()),
            *self._on_devices(squares),
        ]
        return "\n".join(lines)

    def _schedule(self) -> list[str]:
        share, local = self.job.local_share, self.local
        if self.job.window is None or share == 1:
            return []
        return [
            f"The window is on in {share:.0%} of the schedule, attention is full in the rest: the "
            "figures for CLEAR are the mean of all steps, and the memory is the larger one. With "
            f"the window a step takes {local.seconds:.3g} s, without it {self.full.seconds:.3g} s."
        ]

    def _squares(self) -> dict[int, Plan]:
        return {edge: self.at(-(-edge // self.token_px)) for edge in EDGES_PX}

    def _on_devices(self, squares: dict[int, Plan]) -> list[str]:
        if not self.devices.share:
            return lines_on_devices(self.devices, [])
        planned = f"{self._size} (planned)"
        plans = {planned: self, **{f"{edge} x {edge}": one for edge, one in squares.items()}}
        sizes = [
            SizeOnDevices(name, one.clear.seconds, one.on_devices()) for name, one in plans.items()
        ]
        return lines_on_devices(self.devices, sizes)

    @property
    def _size(self) -> str:
        layout = self.job.layout
        return f"{layout.width * self.token_px} x {layout.height * self.token_px}"

    def _size_row(self, edge: int, full: Cost, clear: Cost) -> str:
        seconds = f"{full.seconds:>12.3g}{clear.seconds:>12.3g}"
        memory = f"{gib(self.held(full)):>14}{gib(self.held(clear)):>14}"
        return f"{f'{edge} x {edge}':16}{seconds}{memory}"

    def _rows(self) -> list[tuple[str, ...]]:
        full, clear = both = (self.full, self.clear)
        rows: list[tuple[str, ...]] = [
            ("pairs per head, millions", *(f"{each.pairs / 1e6:,.2f}" for each in both)),
            ("TFLOP per step, linear layers", *(tera(each.linear_flop) for each in both)),
            ("TFLOP per step, attention", *(tera(each.attention_flop) for each in both)),
            ("seconds per step", *(f"{each.seconds:.3g}" for each in both)),
            (f"time for {self.steps} steps", *(duration(self.steps * e.seconds) for e in both)),
            ("memory beside the weights", *(gib(each.memory) for each in both)),
            ("the same in slices", *(gib(each.sliced_memory) for each in both)),
        ]
        if clear.seconds:
            rows.append(("times faster", "1.0", f"{full.seconds / clear.seconds:.1f}"))
        return rows


def make_plan(
    network: Network,
    job: Job,
    machine: Machine,
    budget: Budget,
    *,
    steps: int,
    token_px: int,
    title: str,
    slice_tokens: int | None = None,
    devices: Devices | None = None,
) -> Plan:
    """Measure the machine, and plan a run.

    Args:
        network: The model's dimensions.
        job: One call of it.
        machine: Where it runs.
        budget: Its memory.
        steps: Calls of the model in a run.
        token_px: Edge of a token in pixels.
        title: What the model is.
        slice_tokens: Of the CLEAR Low Memory node on the model, None without one.
        devices: That share each step, None for the one.
    """
    rates = measure(network, job, machine)
    costs = _costs(network, job, machine, rates, slice_tokens)
    return Plan(
        title,
        network,
        job,
        machine,
        rates,
        budget,
        steps,
        token_px,
        *costs,
        slice_tokens,
        devices or Devices(),
    )


def _costs(
    network: Network, job: Job, machine: Machine, rates: Rates, slice_tokens: int | None
) -> tuple[Cost, Cost]:
    full, clear = (_cost(network, each, machine, rates, slice_tokens) for each in (job.full(), job))
    return full, clear


def _cost(
    network: Network, job: Job, machine: Machine, rates: Rates, slice_tokens: int | None
) -> Cost:
    return cost(network, job, machine.dtype, machine.device, rates, slice_tokens or 0)


def tera(flop: int) -> str:
    """Write operations as tera-operations."""
    return f"{flop / 1e12:,.4g}"


def duration(seconds: float) -> str:
    """Write a time for people."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
