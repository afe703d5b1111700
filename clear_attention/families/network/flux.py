"""FLUX's dimensions, as the planner takes them."""

from __future__ import annotations

from dataclasses import replace

from .description import Attention, Blocks, Live, Network


def flux(
    *,
    hidden: int,
    heads: int,
    mlp: int,
    double: int,
    single: int,
    latent_values: int,
    input_values: int,
    context: int,
    gated: bool = False,
    sliceable: bool = True,
) -> Network:
    """Describe a FLUX.

    Args:
        hidden: Width of a token.
        heads: Of each attention.
        mlp: Width inside the MLP.
        double: Number of blocks with streams of their own for text and image.
        single: Number of blocks with one stream.
        latent_values: Of the result in one token.
        input_values: Of the input in one token, more where a picture to be filled in is added.
        context: Width of an encoded text token.
        gated: Whether the MLP multiplies two halves, so that its first layer is twice as wide.
        sliceable: Whether CLEAR Low Memory can compute the blocks in slices.
    """
    halves = 2 if gated else 1
    # qkv, proj and two layers of the MLP; single blocks have them as linear1 and linear2
    block = 4 * hidden**2 + (halves + 1) * hidden * mlp
    every = (double + single) * block
    doubles, singles = doubles_of_flux(double, halves), singles_of_flux(single, halves)
    return Network(
        hidden=hidden,
        heads=heads,
        mlp=mlp,
        image_weights=every + hidden * (input_values + latent_values),
        text_weights=every + hidden * context,
        blocks=tuple(
            each if sliceable else replace(each, sliced=())
            for each in (doubles, singles)
            if each.count
        ),
        attentions=(Attention("double", double), Attention("single", single)),
        latent_values=latent_values,
        position_values=2 * hidden // heads,  # a rotation matrix for each pair of values
    )


def doubles_of_flux(count: int, halves: int = 1) -> Blocks:
    """Describe FLUX's blocks with streams of their own for text and image.

    Args:
        count: How many there are.
        halves: How often the MLP's first layer is as wide as its inside, 2 where it is gated.
    """
    inside = 2 * halves  # an activation's input and output; of a gate also its own result
    return Blocks(
        count=count,
        streams=2,
        heads=2,
        copies=3,  # queries, keys and values of both streams are joined
        mlp_copies=0,
        # joining, rotation, attention: x, q k v, rotated q and k; MLP: x, attention, modulated
        moments=(Live(7, 0), Live(6, 0, float32=2), Live(6, 0, attends="all"), Live(3, inside)),
        sliced=_flux_sliced(Live(3, inside)),
    )


def singles_of_flux(count: int, halves: int = 1) -> Blocks:
    """Describe FLUX's blocks with one stream.

    Args:
        count: How many there are.
        halves: How often the MLP's first layer is as wide as its inside, 2 where it is gated.
    """
    inside = 2 * halves
    return Blocks(
        count=count,
        streams=1,
        heads=2,
        copies=1,  # attention and MLP are joined
        mlp_copies=1,
        # rotation, attention, MLP, while linear1's output of q, k, v and MLP lives on
        moments=(
            Live(8, halves, float32=2),
            Live(8, halves, attends="all"),
            Live(5, inside),
        ),
        sliced=_flux_sliced(Live(4, inside)),
        slices_text=True,
    )


def _flux_sliced(mlp: Live) -> tuple[Live, ...]:
    """Return the moments of a block in slices: x, q k v; then x and the attention's output."""
    return (
        Live(4, 0, part=Live(7, 0, float32=2)),
        Live(4, 0, attends="all"),
        Live(2, 0, part=mlp),
    )
