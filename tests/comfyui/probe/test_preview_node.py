"""The window preview as the host runs it: what it takes, what it refuses."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch


@pytest.fixture
def node(node_classes):
    """Run the node as the host does, and return its outputs."""

    def run(**given):
        with torch.inference_mode():
            return node_classes["CLEARWindowPreview"].execute(**given).args

    return run


@pytest.mark.parametrize("size", [(64, 64), (1, 1), (37, 250), (500, 16), (1024, 40)])
def test_a_picture_of_any_shape_keeps_it(node, size):
    image = torch.rand(2, *size, 3)
    picture, text = node(image=image, radius=4, pool_factor=2, x=0.9, y=0.1)
    assert picture.shape == image.shape and picture.dtype == torch.float32
    assert 0 <= picture.min() <= picture.max() <= 1
    assert f"{size[1]} x {size[0]} pixels" in text


@pytest.mark.parametrize("channels", [1, 4])
def test_pictures_with_other_channels_are_drawn_in_color(node, channels):
    image = torch.full((1, 48, 64, channels), 0.5)
    expected, _ = node(image=torch.full((1, 48, 64, 3), 0.5), radius=1)
    assert torch.equal(node(image=image, radius=1)[0], expected)


def test_the_image_is_left_as_it_is(node):
    image = torch.rand(1, 48, 64, 3)
    before = image.clone()
    node(image=image)
    assert torch.equal(image, before)


def test_without_an_image_the_size_counts(node):
    picture, text = node(width=80, height=48, radius=2)
    assert picture.shape == (1, 48, 80, 3)
    assert "80 x 48 pixels are 5 x 3 tokens" in text


def test_tokens_of_32_pixels_are_as_many_as_such_models_have(node, product):
    sizes = {family.token_px for family in product("families").FAMILIES}
    assert sizes == {16, 32}
    for size in sizes:
        picture, text = node(width=5 * size, height=3 * size, radius=2, token_px=size)
        assert picture.shape == (1, 3 * size, 5 * size, 3)
        assert f"are 5 x 3 tokens of {size} pixels" in text
        assert f"a disc 3 tokens or {3 * size} pixels across" in text


@pytest.mark.parametrize(("x", "y", "at"), [(0, 0, (0, 0)), (1, 1, (2, 4)), (0.99, 0.0, (0, 4))])
def test_the_token_lies_where_it_was_asked_for(node, x, y, at):
    text = node(width=80, height=48, x=x, y=y)[1]
    assert f"row {at[0]}, column {at[1]} sees" in text


def test_with_a_direction_the_corner_sees_as_much_as_the_middle(node):
    size = {"width": 320, "height": 320, "radius": 4, "x": 0, "y": 0}
    seen = {way: node(**size, direction=way)[1] for way in ("none", "horizontal", "both")}
    assert "sees 15 of" in seen["none"] and "cut at the border" in seen["none"]
    assert "sees 26 of" in seen["horizontal"]
    assert "sees 45 of" in seen["both"] and "cut" not in seen["both"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"image": torch.rand(4, 4, 3)}, r"^image must be \[batch, .* got \[4, 4, 3\]\.$"),
        ({"image": torch.rand(1, 4, 4, 2)}, r"^image must be .* got \[1, 4, 4, 2\]\.$"),
        ({"image": torch.rand(0, 4, 4, 3)}, r"^image must have pixels, got \[0, 4, 4, 3\]\.$"),
        ({"width": 0}, r"^width and height must be at least 1 pixel, got 0 x 1024\.$"),
        ({"radius": 0}, "positive integer, got 0"),
        ({"token_px": 0}, r"^token_px must be at least 1, got 0\."),
        ({"pool_factor": -1}, "^pool_factor must be 0 or more, got -1"),
        ({"x": 1.5}, r"^x must be a share of the picture from 0 to 1, got 1\.5\.$"),
        ({"y": float("nan")}, "^y must be a share of the picture from 0 to 1, got nan"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_sentence(node, given, message):
    with pytest.raises(ValueError, match=message):
        node(**given)


@pytest.mark.parametrize(("tile", "drawn"), [((8, 16), (8, 16)), (None, (4, 8))], ids=str)
def test_the_tile_is_that_of_the_backend_which_runs_here(tile, drawn, product, monkeypatch):
    module, asked = product("comfyui.probe.window_preview"), []

    class Backend:
        @staticmethod
        def footprint(q, call):
            return SimpleNamespace(tile=tile)

    def choose(q, call):
        asked.append((q.device.type, q.shape[2], call.layout.height, call.pooling.factor))
        return Backend

    monkeypatch.setattr(module, "choose", choose)
    assert module.tile_of(product("window").Window(8), (6, 5), 4) == drawn
    assert asked == [("cpu", 30, 6, 4)]
