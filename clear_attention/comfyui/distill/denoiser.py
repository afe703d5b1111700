"""A host MODEL as the distiller's `Denoiser`: the same path through the host as when sampling."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager, nullcontext
from typing import Any

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from ...distill.data.shards import Samples
from ...distill.denoiser import Local, Recorder
from ...pooling import Pooling
from ..core.blocks import begun_anew
from ..core.calls.model_call import RECORDER_KEY
from ..core.patch import SETTINGS_KEY, with_settings
from ..core.settings import Settings, WindowSettings
from ..families import plain_module, require_family
from ..weights.base import table_and_size
from . import offload
from .checks import require_trainable
from .data.sampling import given
from .saved_tensors import saved_tensors_kept
from .teacher import fingerprint_of


class HostDenoiser:
    """A MODEL, loaded whole, whose velocity can be trained."""

    def __init__(self, model: ModelPatcher, *, in_main_memory: bool = False) -> None:
        """Load a model.

        Args:
            model: Any MODEL of a known family; it stays as it is.
            in_main_memory: Whether its weights stay there, see `offload`.

        Raises:
            ValueError: It cannot be trained, see `require_trainable`.
        """
        require_trainable(model)
        self.patcher = with_settings(model)
        self.table, self.size = table_and_size(model)
        self.base = self.patcher.model
        self.fingerprint = fingerprint_of(model)
        self.in_main_memory = in_main_memory
        self.load()

    def load(self) -> None:
        """Load the model as a whole, or into main memory; again, after the host ran other models.

        The host does not know what training needs, so that others must leave.
        """
        comfy.model_management.unload_all_models()
        if self.in_main_memory:
            _end_inference(self.network)  # first, for the host pins the memory of what it offloads
            offload.load(self.patcher)
        else:
            comfy.model_management.load_models_gpu([self.patcher], force_full_load=True)
        _end_inference(self.network)

    @property
    def network(self) -> nn.Module:
        """The host's diffusion model."""
        return plain_module(self.base.diffusion_model)

    def latent_in(self, latent: Tensor) -> Tensor:
        """Scale latents from the VAE's range to the network's."""
        return self.base.process_latent_in(latent)

    def velocity(
        self,
        noisy: Tensor,
        sigma: Tensor,
        samples: Samples,
        *,
        guidance: float,
        local: Local | None = None,
        recorder: Recorder | None = None,
    ) -> Tensor:
        """Predict the velocity, see `Denoiser.velocity`."""
        options = dict(self.patcher.model_options["transformer_options"])
        if local is not None:
            settings: Settings = options[SETTINGS_KEY]
            options[SETTINGS_KEY] = settings.with_window(window_settings(local))
        options[RECORDER_KEY] = recorder
        # As the host makes a call's arguments from a conditioning; each family has its own.
        conditions = self.base.extra_conds(
            noise=noisy,
            device=noisy.device,
            cross_attn=samples.context,
            guidance=guidance,
            **given(self.patcher, samples.context, samples.pooled),
        )
        arguments = {
            name: entry.process_cond(batch_size=len(noisy), device=noisy.device).cond
            for name, entry in conditions.items()
        }
        denoised = self.base.apply_model(noisy, sigma, transformer_options=options, **arguments)
        return (noisy - denoised) / sigma.view(-1, *[1] * (noisy.ndim - 1))

    @contextmanager
    def training(self, checkpointing: bool = False) -> Generator[None]:
        """Let gradients flow through the host's blocks, which add to their input in place.

        Args:
            checkpointing: Recompute each block in the backward pass. A student in shards needs it:
                the guard of saved tensors would also keep copies of what FSDP gathers.
        """
        in_place = checkpointed(self._blocks()) if checkpointing else saved_tensors_kept()
        in_order = offload.on_one_stream() if self.in_main_memory else nullcontext()
        with (
            # Newer hosts fuse rotary positions into an operation that has no gradient otherwise.
            offload.host_switch("in_training", True),
            torch.inference_mode(False),
            torch.enable_grad(),
            in_place,
            in_order,
        ):
            yield

    def _blocks(self) -> list[nn.Module]:
        """List the transformer blocks."""
        family = require_family(self.patcher)
        return [block for blocks in family.blocks for block in blocks.of(self.network)]


@contextmanager
def checkpointed(blocks: Collection[nn.Module]) -> Generator[None]:
    """Let blocks keep their input only, and be computed again in the backward pass.

    The host's own way to replace a block hands out a function that, by the time of the backward
    pass, calls the last block; so the blocks' `forward` is wrapped for the length of the ``with``.
    """
    for block in blocks:
        block.forward = functools.partial(_checkpointed, block.forward)
    try:
        yield
    finally:
        for block in blocks:
            del block.__dict__["forward"]


def _checkpointed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    def run(*args: Any, **kwargs: Any) -> Any:
        # The block adds to its input in place: the second time, it must find it as it was.
        copies = {name: _copy(value) for name, value in kwargs.items()}
        if "transformer_options" in copies:
            copies["transformer_options"] = begun_anew(copies["transformer_options"])
        with OverwritingNothing():
            return forward(*map(_copy, args), **copies)

    # The host goes on to write the number of the running block into its options.
    if "transformer_options" in kwargs:
        kwargs["transformer_options"] = dict(kwargs["transformer_options"])
    return checkpoint(run, *args, use_reentrant=False, **kwargs)


class OverwritingNothing(TorchFunctionMode):
    """Gives a tensor new memory before an operation works in place, such as ``x += y``.

    Else what a recomputed block has saved of it changes with it: `saved_tensors_kept` does not see
    those of a checkpoint. Views are left alone, which blocks only read.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation."""
        name: str = func.__name__
        if name.endswith("_") and not name.startswith("_") and not args[0]._is_view():
            args[0].data = args[0].data.clone()
        return func(*args, **(kwargs or {}))


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def window_settings(local: Local) -> WindowSettings:
    """Return the student's attention as a window node would ask for it."""
    weights = local.pooling_weights
    factor = next((weight.shape[0] for weight in weights.values()), 0)
    return WindowSettings(
        local.window.radius,
        pool_factor=factor,
        pool_weights={block: Pooling(factor, weight) for block, weight in weights.items()},
        radii=local.radii,
        backend=local.backend,
    )


def _end_inference(network: nn.Module) -> None:
    """Replace tensors that were loaded in inference mode: autograd refuses them for ever."""
    with torch.inference_mode(False):
        for module in network.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                if parameter.is_inference():
                    own = nn.Parameter(parameter.clone(), requires_grad=parameter.requires_grad)
                    setattr(module, name, own)
            for name, buffer in list(module.named_buffers(recurse=False)):
                if buffer.is_inference():
                    setattr(module, name, buffer.clone())
