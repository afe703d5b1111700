"""Recognise common wrong files, for helpful error messages."""

from __future__ import annotations

from collections.abc import Collection

PICKLE = "is a pickle (.pt, .ckpt, .bin), which can run code: only .safetensors files are accepted"
DOWNLOAD_AGAIN = "download it again"
TEXT = "is not a .safetensors file but a text: choose the file of the weights"

# First bytes -> the rest of a sentence that begins with the file's name; the first match wins.
FIRST_BYTES: tuple[tuple[bytes, str], ...] = (
    (
        b"version https://git-lfs",
        "is a git-lfs pointer, not the file itself: fetch it with `git lfs pull`, "
        "or download it from its web page",
    ),
    (b"GGUF", "is a GGUF file: CLEAR checkpoints are .safetensors files"),
    (b"PK\x03\x04", PICKLE),
    *((bytes((0x80, protocol)), PICKLE) for protocol in range(2, 6)),
    (b"\x89PNG", "is a PNG picture, not a .safetensors file"),
    (b"\xff\xd8\xff", "is a JPEG picture, not a .safetensors file"),
    (b"<", f"is a web page, probably an error of the download: {DOWNLOAD_AGAIN}"),
    (b"\xff\xfe", TEXT),  # UTF-16
    (b"{", f"is a JSON text, probably an error of the download: {DOWNLOAD_AGAIN}"),
)

# Parts of tensor names -> the rest of the sentence; the first match wins.
TENSOR_NAMES: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("lora_A", "lora_B", "lora_up", "lora_down", "lora.up", "lora.down", "hada_w", "lokr_w"),
        "is a LoRA, not a CLEAR checkpoint: load it with a Load LoRA node",
    ),
    (
        ("controlnet_",),
        "is a ControlNet, not a CLEAR checkpoint: use the Load ControlNet Model node",
    ),
    (
        ("model.diffusion_model.",),
        "is a whole checkpoint, not a CLEAR one: load it with the Load Checkpoint node",
    ),
    (
        ("double_blocks.", "joint_blocks."),
        "is a whole diffusion model, not a CLEAR checkpoint: "
        "load it with the Load Diffusion Model node",
    ),
    (
        ("x_embedder.", ".norm1.linear.", ".ff.net.", "proj_mlp", ".to_add_out."),
        "is a whole diffusion model (diffusers names), not a CLEAR checkpoint: "
        "load it with the Load Diffusion Model node",
    ),
    (
        ("text_model.", "encoder.block.", "embed_tokens."),
        "is a text encoder, not a CLEAR checkpoint: load it with a Load CLIP node",
    ),
    (
        ("decoder.conv_in.", "decoder.conv_out.", "encoder.conv_in.", "quant_conv."),
        "is a VAE, not a CLEAR checkpoint: load it with the Load VAE node",
    ),
)


def by_first_bytes(head: bytes) -> str | None:
    """Recognise a file that is not safetensors at all.

    Args:
        head: The file's first bytes, at least 32 where it has them.

    Returns:
        The rest of a sentence that begins with the file's name, or None.
    """
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    for start, sentence in FIRST_BYTES:
        if head.startswith(start) or (start in (b"<", b"{") and text.startswith(start)):
            return sentence
    return TEXT if _is_text(head) else None


def _is_text(head: bytes) -> bool:
    """Return whether a file begins with characters only; its last one may be cut."""
    text = head.decode("utf-8-sig", errors="replace").rstrip("\ufffd")
    return len(text) > len(head) // 4 and all(c.isprintable() or c in "\t\r\n" for c in text)


def by_tensor_names(names: Collection[str]) -> str | None:
    """Recognise a safetensors file that belongs into another node.

    Returns:
        The rest of a sentence that begins with the file's name, or None.
    """
    for parts, sentence in TENSOR_NAMES:
        if any(part in name for name in names for part in parts):
            return sentence
    return None
