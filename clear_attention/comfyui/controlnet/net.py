"""A ControlNet whose own blocks attend locally, and which need not run on each step."""

from __future__ import annotations

import functools
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any

from comfy.controlnet import ControlNet
from torch import Tensor, nn

from ...parallel.attention import Seat
from ..core.blocks import tell_blocks
from ..core.calls.model_call import CALL_KEY, OVERRIDE_KEY, ModelCall, geometry_of_call, why_dense
from ..core.calls.part import settings_of_part
from ..core.coverage import report_coverage
from ..core.override import override
from ..core.patch import REPORT_KEY, SETTINGS_KEY
from ..core.report import ComputedPath, RunReport
from ..core.settings import Settings
from ..families import HostFamily, plain_module
from .chain import added
from .keyframes import RefusesKeyframes
from .positions import rotary_positions, theta_of
from .reuse import Control, Pace, key_of
from .settings import ControlSettings
from .shared import shared_run
from .supported import family_of_net

NO_WINDOW = (
    "full attention: a radius of 0 takes the model's window, and the model that is sampled has "
    "none. Set a radius in CLEAR ControlNet, or put a CLEAR node between model and sampler"
)
NOT_REACHED = "no attention call reached CLEAR: another node replaced the ControlNet's attention"


class LocalControlNet(ControlNet, RefusesKeyframes):
    """The host's ControlNet, with options for its blocks while it runs.

    The copies of one node share a report: the host begins all of them before it asks any, and ends
    all of them after it asked the last.
    """

    def __init__(self, settings: ControlSettings, report: RunReport, **of_the_host: Any) -> None:
        super().__init__(None, **of_the_host)
        self.clear_settings, self._report = settings, report
        self._start()

    @classmethod
    def like(
        cls, other: ControlNet, settings: ControlSettings, report: RunReport
    ) -> LocalControlNet:
        """Copy a ControlNet; the network is shared, as it is between the host's own copies."""
        same = cls(
            settings,
            report,
            global_average_pooling=other.global_average_pooling,
            load_device=other.load_device,
            manual_cast_dtype=other.manual_cast_dtype,
        )
        same.control_model = other.control_model
        same.control_model_wrapped = other.control_model_wrapped
        other.copy_to(same)
        return same

    @property
    def family(self) -> HostFamily:
        """The family of the network, by which its blocks are known."""
        family = family_of_net(plain_module(self.control_model))
        assert family is not None
        return family

    def copy(self) -> LocalControlNet:
        """Return a copy for another conditioning, with a run of its own."""
        return type(self).like(self, self.clear_settings, self._report)

    def pre_run(self, model: Any, percent_to_timestep_function: Any) -> None:
        """Begin a run: discard what an interrupted run left behind."""
        super().pre_run(model, percent_to_timestep_function)
        self._start()
        self._report.clear()
        self._theta_of_model = theta_of(model.diffusion_model)

    def cleanup(self) -> None:
        """Finish a run: publish our own report if the model has none, and free cached tensors."""
        if self._report.lines() or self._report.notes or self._report.warned:
            self._report.publish((), attention=False)
        self._report.clear()
        self._start()
        super().cleanup()

    def get_control(
        self,
        x_noisy: Tensor,
        t: Tensor,
        cond: Any,
        batched_number: int,
        transformer_options: dict[str, Any],
    ) -> Control | None:
        """Return the residuals of this net and of those before it in the chain."""
        previous = self.previous_controlnet
        of_previous = None
        if previous is not None:
            of_previous = previous.get_control(
                x_noisy, t, cond, batched_number, transformer_options
            )
        if not self._in_its_time(t):
            return of_previous
        key, level = key_of(x_noisy, self.strength, transformer_options), float(t[0])
        sigmas = transformer_options.get("sample_sigmas")
        # With several GPUs it is a copy that lives no longer than the call.
        if sigmas is not None and "multigpu_thread_device" not in transformer_options:
            self._pace.end_with(sigmas)
        own = self._pace.recall(key, level, self.cond_hint)
        if own is None:
            self._check_sides(x_noisy)
            with self._alone():
                own = self._compute(x_noisy, t, cond, batched_number, transformer_options)
            self._pace.keep(key, own, self.cond_hint)
        self._tell_pace(transformer_options)
        return added(own, of_previous)

    def _compute(
        self, x_noisy: Tensor, t: Tensor, cond: Any, batched_number: int, options: dict[str, Any]
    ) -> Any:
        """Return this net's residuals, from one device or from those that share the picture."""
        network = plain_module(self.control_model)
        shared = shared_run(network, x_noisy, options)
        if shared is None:
            with self._local(x_noisy, t, options, network):
                return super().get_control(x_noisy, t, cond, batched_number, options)
        local = functools.partial(self._local, x_noisy, t, options)
        with shared.on_all_ranks(local):
            self._merge_later = True
            try:
                super().get_control(x_noisy, t, cond, batched_number, options)
            finally:
                self._merge_later = False
        return shared.merged(lambda part: self.control_merge(part, None, None))

    def control_merge(self, control: Any, control_prev: Any, output_dtype: Any) -> Any:
        """Scale and add residuals as the host does; those of several ranks once all are there."""
        if self._merge_later:
            return control
        return super().control_merge(control, control_prev, output_dtype)

    def _check_sides(self, x_noisy: Tensor) -> None:
        """Refuse sides at which the host's own code fails, in a sentence.

        Nets that are shown pictures cut them into tokens without filling up the last ones.
        """
        network = plain_module(self.control_model)
        family = self.family
        patch, sides = family.patch(network), x_noisy.shape[-2:]
        if getattr(network, "latent_input", True) or not any(side % patch for side in sides):
            return
        height, width = (side * family.data.latent_px for side in sides)
        raise ValueError(
            f"A ControlNet of this kind (XLabs, MistoLine) must have sides that are multiples of "
            f"{family.token_px} pixels, got {width} x {height}. Change the size of the "
            "picture, or take another ControlNet."
        )

    def _start(self) -> None:
        self._merge_later = False
        self._pace = Pace(self.clear_settings.every)
        self._theta_of_model: float | None = None

    def _in_its_time(self, t: Tensor) -> bool:
        """Tell whether a noise level lies between start_percent and end_percent."""
        if self.timestep_range is None:
            return True
        start, end = self.timestep_range
        return bool(end <= t[0] <= start)

    @contextmanager
    def _alone(self) -> Generator[None]:
        """Leave out the rest of the chain: it may hold the same network, and is not to be local."""
        previous, self.previous_controlnet = self.previous_controlnet, None
        try:
            yield
        finally:
            self.previous_controlnet = previous

    @contextmanager
    def _local(
        self,
        x_noisy: Tensor,
        t: Tensor,
        transformer_options: dict[str, Any],
        network: nn.Module,
        seat: Seat | None = None,
    ) -> Generator[None]:
        family = self.family
        of_model = settings_of_part(
            transformer_options.get(SETTINGS_KEY, Settings()), x_noisy, transformer_options
        )
        settings = self.clear_settings.attention(of_model)
        geometry = geometry_of_call(family, network, x_noisy, {})
        call = ModelCall(
            family=family,
            settings=settings,
            geometry=geometry if seat is None else geometry.of_rank(seat),
            why_dense=why_dense(settings.local, geometry, t, self.model_sampling_current),
            previous=None,
            report=RunReport(),
            seat=seat,
        )
        assert call.report is not None
        with ExitStack() as hooks:
            theta = self._theta(network)
            if family.embedder is not None and theta is not None:
                hooks.enter_context(
                    rotary_positions(
                        network,
                        family.embedder,
                        geometry,
                        theta,
                        wrap_height=settings.wrap_height,
                        wrap_width=settings.wrap_width,
                    )
                )
            if call.acts:
                options = {CALL_KEY: call, OVERRIDE_KEY: override}
                hooks.enter_context(tell_blocks(family, network, {}, options))
            elif settings.local is not None:
                call.report.add(ComputedPath("dense", why=call.why_dense or "", whole=True))
            yield
        report_coverage(call, family, network)
        if seat is None or seat.rank == 0:
            self._tell(call, transformer_options)

    def _theta(self, network: Any) -> float | None:
        """Return the rotary base of a call, or None where positions are not made from one."""
        own = theta_of(network)
        if own is None:
            return None
        factor = self.clear_settings.ntk_factor
        return own * factor if factor else self._theta_of_model or own

    def _tell(self, call: ModelCall, transformer_options: dict[str, Any]) -> None:
        assert call.report is not None
        report = self._report_of(transformer_options)
        report.include(call.report, self._name)
        if call.settings.local is None:
            report.warn(f"{self._name}: {NO_WINDOW}")
        elif not call.report.calls:
            report.warn(f"{self._name}: {NOT_REACHED}")

    def _tell_pace(self, transformer_options: dict[str, Any]) -> None:
        report, pace = self._report_of(transformer_options), self._pace
        reused = f"{self._name}: computed on the first of every {pace.every} steps"
        if pace.why_not:
            report.notes.pop(reused, None)
            report.warn(f"{self._name}: nothing is reused between steps: {pace.why_not}")
        elif pace.reused:
            report.note(reused)

    def _report_of(self, transformer_options: dict[str, Any]) -> RunReport:
        """Return the report of the sampled model, or our own if it has none."""
        report: RunReport = transformer_options.get(REPORT_KEY) or self._report
        if self.clear_settings.node_id is not None:
            report.show_on(self.clear_settings.node_id, f"{self._name}:")
        return report

    @property
    def _name(self) -> str:
        node_id = self.clear_settings.node_id
        return "ControlNet" if node_id is None else f"ControlNet of node {node_id}"
