"""Fixtures: whole sampling runs of the small FLUX, with ControlNets too, and what they report."""

from __future__ import annotations

import functools
import logging

import pytest
import torch

from .controlnet_fixtures import hint_for
from .flux_runs import conditioning, sampled

SIZE = (26, 20)
TEXT = (40, 56)
GRID = f"{SIZE[0] // 2} x {SIZE[1] // 2} image tokens"


@pytest.fixture
def sample(host):
    """Sample a few steps with CFG; the two prompts differ in length."""
    return functools.partial(sampled, size=SIZE)


@pytest.fixture
def lines(caplog):
    """The report's lines in the log."""
    caplog.set_level(logging.INFO)
    return lambda: [
        r.getMessage()[7:] for r in caplog.records if r.getMessage().startswith("CLEAR:")
    ]


@pytest.fixture
def controlled(sample):
    """Sample with ControlNets between two conditionings, as ControlNetApplyAdvanced puts them."""

    def run(model, *nets, references=None, end=1.0, **kwargs):
        from nodes import ControlNetApplyAdvanced

        positive, negative = conditioning(TEXT[0], 2), conditioning(TEXT[1], 3)
        if references is not None:
            positive[0][1]["reference_latents"] = references
        for net in nets:
            image = hint_for("instantx", SIZE).movedim(1, -1)
            positive, negative = ControlNetApplyAdvanced().apply_controlnet(
                positive, negative, net, image, 0.8, 0.0, end
            )
        return sample(model, positive=positive, negative=negative, **kwargs)

    return run


def stop_at_second(calls):
    def stop(args):
        calls.append(args)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return args["denoised"]

    return stop


def check_compilations(model, sample, again=False):
    """Check that torch.compile starts no more after the second step, and changes no result.

    Args:
        model: A MODEL.
        sample: Samples it.
        again: Check a second run, too, in which it starts not at all.

    Returns:
        How many frames were compiled up to each step.
    """
    from comfy_api.torch_helpers import set_torch_compile_wrapper
    from torch._dynamo.testing import CompileCounter

    expected = sample(model, steps=4, cfg=1.0)
    torch._dynamo.reset()
    counter = CompileCounter()
    set_torch_compile_wrapper(model=model, backend=counter)
    frames: list[int] = []

    def count(args):
        frames.append(counter.frame_count)
        return args["denoised"]

    model.set_model_sampler_post_cfg_function(count)
    out = sample(model, steps=4, cfg=1.0)
    assert 0 < frames[0] <= frames[1] == frames[3]
    if again:
        sample(model, steps=4, cfg=1.0)
        assert counter.frame_count == frames[3]
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)
    return frames
