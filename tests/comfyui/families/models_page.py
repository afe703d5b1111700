"""docs/models.md, made of the families' rows and of what the tests run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .zoo import ENTRIES, MIDDLE, NEVER, NEW, OLD
from .zoo_limits import UNTRAINABLE

HOSTS = {OLD: "0.3.75", MIDDLE: "0.19.3", NEW: "0.33.0"}
NETS = {
    "flux": "InstantX, Union, XLabs, MistoLine",
    "chroma": "FLUX's",
    "sd3": "SD3 medium's, SD3.5 medium's",
    "qwen_image": "InstantX, Fun (0.33)",
    "z_image": "Fun, with the model's window (0.19)",
}
"""ControlNets that the tests run, by family."""

HEAD = """# Models

Every model that CLEAR knows, what each node does with it, and what was run. This page is made of
the pack's own tables and of its tests (`tests/comfyui/families`), and a test compares it with
them.

*CLEAR Attention (no weights)* works on all of them without training: put it between the model
loader and the sampler. Let the start of the schedule stay full (`start_percent` 0.2), and take a
larger `radius` for a picture that is closer to full attention.

What was seen: small models of random weights in ComfyUI's own classes, on a CPU, in float32. A
window over the whole picture equals ComfyUI's own attention through the sampler (CFG, two prompts
of different length, batches, odd sizes, reference pictures); with a small one, exactly the disc
around a changed token reacts in the first block. No published file of these models was at hand,
and no GPU.
"""

SEEN = """
## What runs
*Hosts*: the ComfyUI versions on which the tests ran; older ones do not have the model.
*References*: the methods of reference pictures that were run; all of them stay fully visible.
*Masks*: whether ComfyUI hides the padding of prompts from the attention, which costs nothing here.
*Kernel*: whether CLEAR's Triton kernel takes the head_dim; where it does not, PyTorch's
FlexAttention or the tiled backend does.
"""

NODES = """
## Which node takes which model
*Attention*, *Locality*, *Preview*, *Plan*, *Upscale* and *Seamless Decode* take every model of this
table; models that paint pixels have ComfyUI's VAE *pixel_space*. A number stands for what a node
says in place of working, below.
"""

ASK = """
## Ask for a model
A model that is not here is refused by name in one sentence. To ask for it, open an issue titled
with the model's name and with the class that the sentence names. To add it, write its two files
and two lines: CONTRIBUTING has the recipe, and `tests/comfyui/families/zoo.py` takes a small model
of it.
"""


def page(data: Any, host: Any, unsupported: Any, configs: Any) -> str:
    """Return the page.

    Args:
        data: The package of families without the host.
        host: The package of their host side.
        unsupported: The module of what is refused.
        configs: The module of what the kernel takes.
    """
    rows = {family.data.key: family for family in host.FAMILIES}
    families = [rows[family.key] for family in data.FAMILIES]
    head_dims = configs.HEAD_DIMS["cuda"]
    lines = [HEAD, SEEN]
    lines += _table(
        ("Family", "Models", "Hosts", "References", "Masks", "head_dim", "Kernel"),
        (_seen(family.data, head_dims) for family in families),
    )
    notes: list[str] = []
    nodes = [_nodes(family, lambda note: _number(notes, note)) for family in families]
    lines += [NODES]
    lines += _table(
        (
            *("Family", "Loader, Extract, Distil", "High Resolution", "Seamless"),
            *("Low Memory", "ControlNet"),
        ),
        nodes,
    )
    lines += [""] + [f"{number}. {note}." for number, note in enumerate(notes, 1)]
    lines += ["", "## What is refused, and why", ""]
    lines += [f"- `{name}`: {why}." for name, why in unsupported.REASONS.items()]
    lines += [
        "- Pictures with several frames or layers stay full, and the report states it: "
        "the window is one of single pictures so far.",
        "- HiDream-E1's pictures to be edited: full, and the report states why.",
        "- nunchaku's models: their attention runs in its own engine.",
    ]
    return "\n".join([*lines, ASK])


def _seen(family: Any, head_dims: Iterable[int]) -> list[str]:
    entries = [entry for entry in ENTRIES.values() if entry.family == family.key]
    hosts = [
        name for version, name in HOSTS.items() if any(one.since <= version for one in entries)
    ]
    methods = dict.fromkeys(method or "as the host" for one in entries for method in one.references)
    masks = [one.masked_since for one in entries if one.masked_since < NEVER]
    return [
        family.title,
        family.models,
        ", ".join(hosts) or "none; a stand-in",
        ", ".join(methods) or "-",
        f"from {HOSTS[min(masks)]}" if masks else "-",
        str(family.head_dim),
        "yes" if family.head_dim in head_dims else "no",
    ]


def _nodes(family: Any, number: Callable[[str], str]) -> list[str]:
    data, yes = family.data, "yes"
    scaled = wrapped = yes
    if not data.is_rotary:
        scaled = wrapped = number("A learned table of positions: neither scaled nor wrapped")
    elif family.embedder is None:
        wrapped = number("Positions are out of reach: the window wraps, a seam may stay")
        if not family.theta:
            scaled = number("Positions are out of reach: `ntk_factor` must be 1")
    return [
        data.title,
        _weights(data, number),
        scaled,
        wrapped,
        yes if sliced(family) else number("Its blocks cannot be computed in slices"),
        NETS.get(data.key, "-"),
    ]


def _weights(data: Any, number: Callable[[str], str]) -> str:
    if not data.names:
        return number("No names of weights are known")
    limit = UNTRAINABLE.get(data.key)
    return number(limit.note) if limit else "yes"


def sliced(family: Any) -> bool:
    """Return whether some blocks of a family can be computed in slices."""
    return any(blocks.sliced or blocks.feed_forward for blocks in family.blocks)


def _number(notes: list[str], note: str) -> str:
    if note not in notes:
        notes.append(note)
    return f"({notes.index(note) + 1})"


def _table(head: tuple[str, ...], rows: Iterable[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]
