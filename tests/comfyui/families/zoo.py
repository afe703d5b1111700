"""A small model of each picture architecture that the host runs, as data for `zoo_models`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor

from . import zoo_dimensions as small
from .zoo_dimensions import POOLED, TEXT

Version = tuple[int, ...]
Extras = Callable[[int, Generator], dict[str, Any]]

OLD: Version = (0, 3, 75)
MIDDLE: Version = (0, 19, 3)
NEW: Version = (0, 33, 0)
"""The hosts that were looked at; a class counts from the first of them that has it."""
NEVER: Version = (100,)


def nothing(tokens: int, random: Generator) -> dict[str, Any]:
    """Return no conditioning beyond the text."""
    return {}


def pooled(tokens: int, random: Generator) -> dict[str, Any]:
    """Return a pooled vector of the text."""
    return {"pooled_output": torch.randn(1, POOLED, generator=random)}


def llama(tokens: int, random: Generator) -> dict[str, Any]:
    """Return what HiDream-I1 takes: a second text, once per layer, of another length."""
    states = torch.randn(1, 2, tokens + 2, TEXT, generator=random)
    return {**pooled(tokens, random), "conditioning_llama3": states}


def glyphs(tokens: int, random: Generator) -> dict[str, Any]:
    """Return what Hunyuan Image takes beside the text; its width is fixed in the host's class."""
    return {"conditioning_byt5small": torch.randn(1, 3, 1472, generator=random)}


def words(tokens: int, random: Generator) -> dict[str, Any]:
    """Return ids of words; HiDream-O1 replaces the last one, which is special, by the time."""
    ids = torch.randint(10, 1000, (1, tokens), generator=random)
    ids[0, -1] = 151673
    return {"text_input_ids": ids}


def whole(tokens: int, random: Generator) -> dict[str, Any]:
    """Return a mask that hides nothing: older hosts count OmniGen2's words by it."""
    return {"attention_mask": torch.ones(1, tokens, dtype=torch.long)}


@dataclass(frozen=True)
class Entry:
    """A model of the zoo.

    Attributes:
        family: Key of the family that it belongs to.
        config: Class in the host's ``supported_models``.
        dimensions: Arguments of the host's network.
        blocks: Kind of attention -> path of the list of blocks, in the order in which they run.
        channels: Of a latent.
        patch: Edge of a token in latent pixels.
        since: First of the hosts that has it.
        params: Dataclass of the network's arguments that a host knows, ``module:name``, or empty.
        frames: Whether latents have an axis for frames.
        frames_since: First host that itself takes several frames where there is such an axis.
        odd_since: First host that itself takes pictures which do not fill their last tokens.
        extras: Conditioning beyond the text, for a length of the text.
        first_call: Whether only the first attention of a block is the picture's own.
        references: Method for reference pictures -> first host that has it; empty for the default.
        masked_since: First host whose attention a mask of the text reaches.
        twice: Kind of a second attention of a block -> kind of the block.
        blocks_twice: How many blocks have that second attention.
    """

    family: str
    config: str
    dimensions: Mapping[str, Any]
    blocks: Mapping[str, str]
    channels: int = 16
    patch: int = 2
    since: Version = OLD
    params: str = ""
    frames: bool = False
    frames_since: Version = OLD
    odd_since: Version = OLD
    extras: Extras = nothing
    first_call: bool = False
    references: Mapping[str, Version] = field(default_factory=dict)
    masked_since: Version = NEVER
    twice: Mapping[str, str] = field(default_factory=dict)
    blocks_twice: int = 0

    def reference(self, rows: int, columns: int, random: Generator) -> Tensor:
        """Return a reference picture of so many tokens, as the host's nodes hand it over."""
        height, width = rows * self.patch, columns * self.patch
        if self.extras is words:  # pixels
            return torch.rand(1, height, width, 3, generator=random)
        frames = (1,) if self.frames else ()
        return torch.randn(1, self.channels, *frames, height, width, generator=random)


STREAMS = {"double": "double_blocks", "single": "single_blocks"}
LAYERS = {"refiner": "noise_refiner", "joint": "layers"}
JOINT = {"joint": "transformer_blocks"}
SELF = {"self": "blocks"}
FLUX_METHODS = {"offset": OLD, "index": OLD, "uxo": OLD}
FLUX_PARAMS = "comfy.ldm.flux.model:FluxParams"
CHROMA_PARAMS = "comfy.ldm.chroma.model:ChromaParams"
RADIANCE_PARAMS = "comfy.ldm.chroma_radiance.model:ChromaRadianceParams"
HUNYUAN_PARAMS = "comfy.ldm.hunyuan_video.model:HunyuanVideoParams"
ANY = {"": OLD}

ENTRIES: dict[str, Entry] = {
    "flux": Entry(
        *("flux", "Flux", small.FLUX, STREAMS),
        **dict(extras=pooled, references=FLUX_METHODS, params=FLUX_PARAMS),
    ),
    "ovis": Entry(
        *("flux", "Flux", {**small.FLUX, **small.NO_VECTOR, "yak_mlp": True, "txt_norm": True}),
        **dict(blocks=STREAMS, since=MIDDLE, params=FLUX_PARAMS, references=FLUX_METHODS),
    ),
    "longcat": Entry(
        *("flux", "LongCatImage", {**small.FLUX, **small.NO_VECTOR}, STREAMS),
        **dict(since=MIDDLE, params=FLUX_PARAMS, references=FLUX_METHODS),
    ),
    "flux2": Entry(
        *("flux2", "Flux2", {**small.FLUX, **small.FLUX2}, STREAMS, 128, 1),
        **dict(params=FLUX_PARAMS, references={"": OLD, "index_timestep_zero": MIDDLE}),
    ),
    "sd3": Entry(
        *("sd3", "SD3", small.SD3, {"joint": "joint_blocks"}),
        **dict(extras=pooled, twice={"image": "joint"}, blocks_twice=1),
    ),
    "chroma": Entry("chroma", "Chroma", small.CHROMA, STREAMS, params=CHROMA_PARAMS),
    "radiance": Entry(
        *("radiance", "ChromaRadiance", {**small.CHROMA, **small.RADIANCE}, STREAMS, 3, 16),
        params=RADIANCE_PARAMS,
    ),
    "z_image": Entry(*("z_image", "ZImage", small.Z_IMAGE, LAYERS)),
    "z_image_omni": Entry(
        *("z_image", "ZImage", {**small.Z_IMAGE, "siglip_feat_dim": 16}, LAYERS),
        **dict(since=MIDDLE, references=ANY),
    ),
    "lumina2": Entry(*("lumina2", "Lumina2", small.LUMINA, LAYERS)),
    "newbie": Entry(
        *("lumina2", "Lumina2", {**small.LUMINA, "clip_text_dim": POOLED}, LAYERS),
        **dict(since=MIDDLE, extras=pooled),
    ),
    "qwen_image": Entry(
        *("qwen_image", "QwenImage", dict(image_model="qwen_image", in_channels=64, **small.QWEN)),
        **dict(blocks=JOINT, frames=True, frames_since=MIDDLE, masked_since=MIDDLE),
        references={"index": OLD, "negative_index": OLD, "index_timestep_zero": MIDDLE},
    ),
    "krea2": Entry(
        *("krea2", "Krea2", small.KREA2, {"joint": "blocks"}),
        **dict(since=NEW, frames=True, frames_since=NEVER),
        references={"index": NEW, "index_timestep_zero": NEW},
    ),
    "hidream_o1": Entry(
        *("hidream_o1", "HiDreamO1", small.HIDREAM_O1, {"joint": "language_model.layers"}, 3, 32),
        **dict(since=NEW, odd_since=NEVER, extras=words, references=ANY),
    ),
    "hunyuan_image": Entry(
        *("hunyuan_image", "HunyuanImage21", small.HUNYUAN, STREAMS, 64, 1),
        **dict(params=HUNYUAN_PARAMS, extras=glyphs),
    ),
    "hunyuan_video": Entry(
        *("hunyuan_video", "HunyuanVideo", {**small.HUNYUAN, **small.HUNYUAN_VIDEO}, STREAMS),
        **dict(params=HUNYUAN_PARAMS, extras=pooled, frames=True, odd_since=NEVER),
    ),
    "hunyuan_video15": Entry(
        *("hunyuan_video", "HunyuanVideo15", {**small.HUNYUAN, **small.HUNYUAN_VIDEO15}, STREAMS),
        **dict(params=HUNYUAN_PARAMS, extras=glyphs, frames=True, channels=32, patch=1),
    ),
    "hidream": Entry(
        *("hidream", "HiDream", small.HIDREAM),
        {"double": "double_stream_blocks", "single": "single_stream_blocks"},
        extras=llama,
    ),
    "aura_flow": Entry(
        *("aura_flow", "AuraFlow", small.AURA),
        {"double": "double_layers", "single": "single_layers"},
        channels=4,
    ),
    "cosmos_predict2": Entry(
        *("cosmos_predict2", "CosmosT2IPredict2"),
        {**small.COSMOS, "image_model": "cosmos_predict2"},
        **dict(blocks=SELF, frames=True, first_call=True, odd_since=MIDDLE),
    ),
    "anima": Entry(
        *("cosmos_predict2", "Anima", {**small.COSMOS, "image_model": "anima"}, SELF),
        **dict(since=MIDDLE, frames=True, first_call=True),
    ),
    "kandinsky5": Entry(
        *("kandinsky5", "Kandinsky5Image", small.KANDINSKY, {"self": "visual_transformer_blocks"}),
        **dict(since=MIDDLE, extras=pooled, first_call=True, odd_since=NEVER),
    ),
    "omnigen2": Entry(
        *("omnigen2", "Omnigen2"),
        {**small.GROUPED, "image_model": "omnigen2", "text_feat_dim": TEXT},
        **dict(blocks=LAYERS, references=ANY, extras=whole),
    ),
    "boogu": Entry(
        *("boogu", "Boogu"),
        {**small.GROUPED, "instruction_feat_dim": TEXT, "num_double_stream_layers": 2}
        | {"image_model": "boogu"},
        {
            "refiner": "noise_refiner",
            "double": "double_stream_layers",
            "single": "single_stream_layers",
        },
        **dict(since=NEW, references=ANY, twice={"image": "double"}, blocks_twice=2, extras=whole),
    ),
    "ideogram4": Entry(
        *("ideogram4", "Ideogram4", small.IDEOGRAM, {"joint": "layers"}, 128, 1),
        **dict(since=NEW, masked_since=NEW),
    ),
    "lens": Entry(
        *("lens", "Lens", small.LENS, JOINT, 128, 1),
        **dict(since=NEW, masked_since=NEW),
    ),
    "mage_flow": Entry(
        *("mage_flow", "MageFlow", dict(image_model="mage_flow", **small.QWEN), JOINT, 128, 1),
        **dict(since=NEW, masked_since=NEW, references=ANY),
    ),
    "joy_image": Entry(
        *("joy_image", "JoyImage", small.JOY, {"joint": "double_blocks"}),
        **dict(since=NEW, frames=True, references=ANY),
    ),
    "pixeldit": Entry(
        *("pixeldit", "PixelDiTT2I", small.PIXELDIT),
        {"joint": "patch_blocks", "pixel": "pixel_blocks"},
        **dict(channels=3, patch=16, since=NEW),
    ),
    "wan": Entry(
        *("wan", "WAN21_T2V", small.WAN, SELF),
        **dict(frames=True, first_call=True),
    ),
    "wan_5b": Entry(
        *("wan_5b", "WAN22_T2V", {**small.WAN, **small.WAN_5B}, SELF, 48),
        **dict(frames=True, first_call=True),
    ),
}

UNSEEN = {"qwen_image21": "comfy.ldm.qwen_image21"}
"""Family without an entry -> package of its class, which none of these hosts has."""
