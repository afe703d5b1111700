"""SD3's dimensions, as the planner takes them."""

from __future__ import annotations

from .description import Attention, Blocks, Live, Network


def sd3(
    *,
    hidden: int,
    heads: int,
    mlp: int,
    joint: int,
    image: int,
    latent_values: int,
    context: int,
) -> Network:
    """Describe an SD3, whose last block drops the text after its attention.

    Args:
        hidden: Width of a token.
        heads: Of each attention.
        mlp: Width inside the MLP.
        joint: Number of blocks.
        image: Number of those that also attend to the image alone.
        latent_values: Of the latent in one token.
        context: Width of an encoded text token.
    """
    block = 4 * hidden**2 + 2 * hidden * mlp
    plain = Blocks(
        count=joint - image,
        streams=2,
        heads=2,
        copies=3,
        mlp_copies=0,
        # attention: x, qkv, normalised q and k, joined q k v; the MLP: output, two more x, insides
        moments=(Live(9, 0, attends="all"), Live(12, 2)),
        sliced=(
            Live(4, 0, part=Live(8, 0)),
            Live(4, 0, attends="all", part=Live(6, 0)),  # the last slice's q, k and v live on
            Live(2, 0, part=Live(6, 2)),
        ),
    )
    double = Blocks(
        count=image,
        streams=3,
        heads=4,
        copies=3,
        mlp_copies=0,
        # the same with q, k and v of a second attention, which runs when the first is done
        moments=(Live(14, 0, attends="all"), Live(15, 0, attends="image"), Live(18, 2)),
        sliced=(
            Live(7, 0, part=Live(12, 0)),
            Live(7, 0, attends="all", part=Live(11, 0)),
            Live(5, 0, attends="image", part=Live(11, 0)),
            Live(3, 0, part=Live(8, 2)),
        ),
    )
    attentions = (Attention("joint", joint), Attention("image", image, image_only=True))
    return Network(
        hidden=hidden,
        heads=heads,
        mlp=mlp,
        image_weights=joint * block + image * 4 * hidden**2 + 2 * hidden * latent_values,
        text_weights=(joint - 1) * block + 3 * hidden**2 + hidden * context,
        blocks=tuple(each for each in (double, plain) if each.count),
        attentions=tuple(each for each in attentions if each.count),
        latent_values=latent_values,
        position_values=0,
    )
