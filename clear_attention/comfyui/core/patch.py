"""Make a clone of a model run CLEAR attention, through the host's wrappers only."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from torch import Tensor

from ...backends.lasting import pause_recordings_with
from ..core import host
from ..families import HostFamily, family_of, plain_module, require_family
from .benefit import ESTIMATE_KEY, WORTH_MEASURING
from .blocks import block_counts, blocks_named
from .calls.attached import attached_local
from .calls.model_call import (
    CALL_KEY,
    OVERRIDE_KEY,
    RECORDER_KEY,
    SEAT_KEY,
    ModelCall,
    geometry_of_call,
    why_dense,
)
from .calls.own_attention import own_attentions
from .calls.part import PICTURE_KEY, settings_of_part, size_of
from .coverage import report_coverage
from .exact_positions import make_positions_exact, set_grid
from .override import override
from .report import WINDOW, ComputedPath, RunReport
from .settings import Settings, WindowSettings

logger = logging.getLogger(__name__)

SETTINGS_KEY = "clear_attention"
"""Where the nodes' `Settings` lie in a model's transformer_options."""

pause_recordings_with(host.outside_recording)

ONE_GRAPH = (
    "CLEAR must run between the parts of a compiled model, got a model that is compiled as one "
    "graph. Switch fullgraph off in the node that compiles it."
)
UNTRACED = ("<function override ", "<function _replace.<locals>.replace ")
"""How torch's compiler writes the functions of this pack that it must not look into."""

REPORT_KEY = "clear_attention_report"


def settings_of(model: ModelPatcher) -> Settings:
    """Return what earlier nodes asked for on this model."""
    return model.model_options.get("transformer_options", {}).get(SETTINGS_KEY, Settings())


def with_window(
    model: ModelPatcher, local: WindowSettings | None, node_id: str | None = None
) -> ModelPatcher:
    """Return a clone of the model with this window; nothing of an earlier one remains.

    Args:
        model: A MODEL, left as it is.
        local: What a window node asks for, or None for full attention.
        node_id: The node that shows the report.

    Raises:
        RuntimeError: The host is too old.
        ValueError: The model's architecture is not supported, or a setting can have no effect.
    """
    host.require_usable()
    require_family(model)
    if local is not None:
        local.check(block_counts(model))
    return _with(model, settings_of(model).with_window(local, node_id), node_id, WINDOW)


def with_settings(
    model: ModelPatcher,
    node_id: str | None = None,
    *,
    proportional: bool | None = None,
    ntk_factor: float | None = None,
    wrap_height: bool | None = None,
    wrap_width: bool | None = None,
    name_blocks: bool | None = None,
    observer: Callable[..., None] | None = None,
    about: str = WINDOW,
) -> ModelPatcher:
    """Return a clone of the model with changed settings; of two nodes the later one wins.

    The window is left as it is, see `with_window`. None leaves a setting as it is too.

    Args:
        model: A MODEL, left as it is.
        node_id: The node that shows the report.
        proportional: See `Settings`.
        ntk_factor: See `Settings`.
        wrap_height: See `Settings`.
        wrap_width: See `Settings`.
        name_blocks: See `Settings`.
        observer: Follows each model call from now on, once if it is added again.
        about: What is the node's own in the report, see `Settings`.

    Raises:
        RuntimeError: The host is too old.
        ValueError: The model's architecture is not supported.
    """
    host.require_usable()
    require_family(model)
    settings = settings_of(model)
    given = {
        "proportional": proportional,
        "ntk_factor": ntk_factor,
        "wrap_height": wrap_height,
        "wrap_width": wrap_width,
        "name_blocks": name_blocks,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    settings = dataclasses.replace(settings, **changes)
    if observer is not None:
        observers = dict.fromkeys((*settings.observers, observer))
        settings = dataclasses.replace(settings, observers=tuple(observers))
    return _with(model, settings, node_id, about)


def _with(model: ModelPatcher, settings: Settings, node_id: str | None, about: str) -> ModelPatcher:
    if node_id is not None:
        others = tuple(other for other in settings.node_ids if other != node_id)
        lines = tuple(line for line in settings.about if line[0] != node_id)
        settings = dataclasses.replace(
            settings, node_ids=(*others, node_id), about=(*lines, (node_id, about))
        )
    model = model.clone()
    options = model.model_options.setdefault("transformer_options", {})
    if SETTINGS_KEY not in options:
        _install(model)
    options[SETTINGS_KEY] = settings
    return model


def _install(model: ModelPatcher) -> None:
    for kind, wrapper in (
        (WrappersMP.OUTER_SAMPLE, report_run),
        (WrappersMP.APPLY_MODEL, direct_attention),
    ):
        add_wrapper_with_key(
            kind, SETTINGS_KEY, wrapper, model.model_options, is_model_options=True
        )
    embedder = require_family(model).embedder
    if embedder is not None:
        make_positions_exact(model, embedder)


def report_run(executor: Any, *args: Any, **kwargs: Any) -> Any:
    """Collect what happens during one sampling run, and publish it at its end."""
    options = executor.class_obj.model_options["transformer_options"]
    report = options[REPORT_KEY] = RunReport()
    options[PICTURE_KEY] = size_of(args[0] if args else kwargs["noise"])
    model = executor.class_obj.model_patcher
    in_full = None
    try:
        with nothing_kept(model.model.diffusion_model):
            sampled = executor(*args, **kwargs)
        report.stop_clock()
        in_full = seconds_in_full(report, model)
        return sampled
    finally:
        settings: Settings = options[SETTINGS_KEY]
        attention = settings.local is not None
        if attention or report.lines() or report.notes or report.warned:
            report.publish(
                settings.node_ids, attention, settings.replaced, dict(settings.about), in_full
            )


def seconds_in_full(report: RunReport, model: ModelPatcher) -> float | None:
    """Return what a finished run would have taken with full attention, None without a base."""
    estimate = model.model_options["transformer_options"].get(ESTIMATE_KEY)
    if estimate is None or report.seconds is None or report.seconds < WORTH_MEASURING:
        return None
    try:
        return estimate(report, model)
    except (RuntimeError, ValueError) as error:  # no memory to measure in, or a size too far
        logger.info("CLEAR: full attention could not be estimated: %s", error)
        return None


@contextmanager
def nothing_kept(diffusion_model: Any) -> Generator[None]:
    """Let a model keep nothing that other weights have computed, before a run and behind it."""
    family = family_of(diffusion_model)
    if family is None or not family.forgets:
        yield
        return
    forget = getattr(plain_module(diffusion_model), family.forgets)
    forget()
    try:
        yield
    finally:
        forget()


def direct_attention(
    executor: Any,
    x: Tensor,
    t: Tensor,
    c_concat: Tensor | None = None,
    c_crossattn: Tensor | None = None,
    control: Any = None,
    transformer_options: dict[str, Any] | None = None,
    **kwargs: Any,
) -> Tensor:
    """Put our override into the options of one model call, in front of whatever is there.

    A call that is full attention as a whole is left as it is. Looking at the slot per call, not
    when the node runs, lets nodes that assign it stand before or after ours in the graph.
    """
    options = dict(transformer_options or {})
    settings = options.get(SETTINGS_KEY)
    model = executor.class_obj
    family = family_of(model.diffusion_model)
    if settings is None or family is None or options.get(OVERRIDE_KEY) is override:
        return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)
    seat = options.get(SEAT_KEY)
    geometry = geometry_of_call(family, model.diffusion_model, x, kwargs, c_crossattn)
    call = options[CALL_KEY] = ModelCall(
        family=family,
        settings=settings_of_part(settings, x, options),
        asked=settings,
        geometry=geometry if seat is None else geometry.of_rank(seat),
        why_dense=why_dense(
            settings.local, geometry, t, model.model_sampling, family.why_declined(kwargs)
        ),
        previous=options.get(OVERRIDE_KEY),
        report=options.get(REPORT_KEY),
        recorder=options.get(RECORDER_KEY),
        own_attention=own_attentions(family, model.diffusion_model, options.get(REPORT_KEY)),
        seat=seat,
    )
    wraps = (call.settings.wrap_height, call.settings.wrap_width)
    set_grid(family, model.diffusion_model, geometry, wraps)
    if call.report is not None:
        call.report.begin_call(x.shape[0], shared=SEAT_KEY in options)
    for observe in settings.observers:
        observe(call, x, model.diffusion_model)
    directed = attention_directed(call, family, model.diffusion_model, options)
    attached = attached_local(call, options) if call.acts else nullcontext()
    with one_graph_named(), directed, attached:
        out = executor(x, t, c_concat, c_crossattn, control, options, **kwargs)
    report_coverage(call, family, model.diffusion_model)
    return out


@contextmanager
def one_graph_named() -> Generator[None]:
    """Name `fullgraph` where torch's compiler fails because of it.

    Raises:
        RuntimeError: In place of the compiler's error.
    """
    try:
        yield
    except Exception as error:
        # By name: torch's compiler takes seconds to import.
        if type(error).__name__ != "Unsupported" or not any(one in str(error) for one in UNTRACED):
            raise
        raise RuntimeError(ONE_GRAPH) from error


def attention_directed(
    call: ModelCall, family: HostFamily, network: Any, options: dict[str, Any]
) -> AbstractContextManager[None]:
    """Put our override into a call's options, where it has something to do.

    Args:
        call: That begins.
        family: Of the network.
        network: That runs, compiled or not.
        options: Of the call; changed.
    """
    if call.acts:
        options[OVERRIDE_KEY] = override
    elif call.report is not None and call.settings.local is not None:
        call.report.add(ComputedPath("dense", why=call.why_dense or "", whole=True))
    if call.acts or call.needs_block:
        return blocks_named(family, network, options, call.needs_block)
    return nullcontext()
