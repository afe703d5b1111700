"""The window drawn over a picture: true to scale, at any size, at any place."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clear_attention import Window
from clear_attention.locality.window_preview import (
    DISC,
    HALO,
    HIDDEN,
    LOADED,
    TILE,
    Preview,
    blank,
    draw,
    token_at,
)

TOKEN_PX = 16


def preview(
    height_px=640, width_px=960, radius=5, at=(20, 30), tile=(4, 8), pool_factor=0, wraps=(0, 0)
):
    window = Window(radius, *map(bool, wraps))
    return Preview(height_px, width_px, window, at, tile, pool_factor, TOKEN_PX)


def drawn(what, value=0.5):
    return draw(what, torch.full((1, what.height_px, what.width_px, 3), value))[0]


def center(picture, row, column):
    """Return the color in the middle of a token."""
    return picture[row * TOKEN_PX + TOKEN_PX // 2, column * TOKEN_PX + TOKEN_PX // 2]


@st.composite
def previews(draw):
    height_px, width_px = draw(st.integers(1, 300)), draw(st.integers(1, 300))
    at = (
        draw(st.integers(0, -(-height_px // TOKEN_PX) - 1)),
        draw(st.integers(0, -(-width_px // TOKEN_PX) - 1)),
    )
    return preview(
        height_px,
        width_px,
        draw(st.integers(1, 12)),
        at,
        draw(st.sampled_from([(4, 8), (16, 16)])),
        draw(st.sampled_from([0, 1, 3])),
        draw(st.tuples(st.booleans(), st.booleans())),
    )


@given(previews())
def test_every_token_is_as_bright_as_it_is_seen(what):
    """In the middle of a token, where no line is: at any size and near every border."""
    picture = drawn(what)
    rows, columns = what.halo()
    mask = what.window.mask(what.rows, what.columns)
    sees = mask[what.at[0] * what.columns + what.at[1]].view(what.rows, what.columns)
    assert picture.shape == (what.height_px, what.width_px, 3)
    for row in range(what.height_px // TOKEN_PX):
        for column in range(what.width_px // TOKEN_PX):
            if (row, column) == what.at:
                continue
            loaded = rows[row] and columns[column]
            brightness = 1.0 if sees[row, column] else LOADED if loaded else HIDDEN
            expected = torch.full((3,), 0.5 * brightness)
            torch.testing.assert_close(center(picture, row, column), expected)


@given(previews())
def test_the_disc_lies_within_the_halo_of_its_tile(what):
    rows, columns = what.halo()
    assert not (what.disc() & ~(rows[:, None] & columns)).any()
    tile = what.tile_box()
    window = what.window
    for reached, box, wraps in zip(
        (rows, columns), tile, (window.wrap_height, window.wrap_width), strict=True
    ):
        for place, found in enumerate(reached.tolist()):
            ways = [place, place - len(reached), place + len(reached)] if wraps else [place]
            assert found == any(
                box.start - window.reach <= way < box.stop + window.reach for way in ways
            )
    assert what.at[0] in range(tile[0].start, tile[0].stop)
    assert what.at[1] in range(tile[1].start, tile[1].stop)


def test_lines_lie_on_the_edges_of_tokens():
    picture = drawn(preview())
    top, left = (20 - 4) * TOKEN_PX, (30 - 4) * TOKEN_PX
    middle = 30 * TOKEN_PX + 8
    assert torch.equal(picture[top, middle], torch.tensor(DISC))
    assert not torch.equal(picture[top - 1, middle], torch.tensor(DISC))
    assert torch.equal(picture[20 * TOKEN_PX + 8, left], torch.tensor(DISC))
    # The tile of 4 x 8 tokens: rows 20 to 23, columns 24 to 31; its halo 4 tokens more.
    assert torch.equal(picture[24 * TOKEN_PX - 1, 30 * TOKEN_PX + 8], torch.tensor(TILE))
    assert torch.equal(picture[16 * TOKEN_PX, 20 * TOKEN_PX + 40], torch.tensor(HALO))
    assert torch.equal(picture[28 * TOKEN_PX - 1, 36 * TOKEN_PX - 1], torch.tensor(HALO))
    assert not torch.equal(picture[28 * TOKEN_PX, 36 * TOKEN_PX], torch.tensor(HALO))


def test_a_window_over_the_whole_picture_draws_no_rim():
    what = preview(160, 96, radius=20, at=(3, 2))
    picture = drawn(what)
    token = slice(3 * TOKEN_PX, 4 * TOKEN_PX), slice(2 * TOKEN_PX, 3 * TOKEN_PX)
    assert center(picture, 3, 2).tolist() != [0.5] * 3
    picture[token] = 0.5
    tile = (picture - torch.tensor(TILE)).abs().sum(-1) < 1e-6
    assert (picture[~tile] == 0.5).all()


def test_pooled_cells_are_as_large_as_they_are():
    plain, pooled = drawn(preview()), drawn(preview(pool_factor=4))
    changed = (plain != pooled).any(-1)
    assert changed[64, 8] and changed[8, 64] and changed[576, 900]
    assert not changed[63, 8] and not changed[0, 8] and not changed[100, 100]
    lines = changed[40]  # a row of pixels between two lines
    assert lines.nonzero().flatten().tolist() == list(range(64, 960, 64))


def test_where_the_picture_ends_there_is_no_rim():
    for at in ((0, 30), (39, 30), (20, 0), (20, 59)):
        picture = drawn(preview(at=at, tile=(1, 1)))
        border = torch.cat((picture[0], picture[-1], picture[:, 0], picture[:, -1]))
        rim = (border - torch.tensor(DISC)).abs().sum(-1) < 1e-6
        # Only where the disc's own sides meet the border: two pixels, the rest is seen as it is.
        assert int(rim.sum()) == 2
        assert int((border == 0.5).all(-1).sum()) >= 8 * TOKEN_PX - 2


def test_cells_of_one_token_are_not_drawn():
    assert torch.equal(drawn(preview(pool_factor=1)), drawn(preview()))


def test_a_batch_is_drawn_picture_by_picture():
    what = preview(64, 48, at=(1, 1))
    pictures = torch.rand(3, 64, 48, 3)
    assert torch.equal(draw(what, pictures)[2:], draw(what, pictures[2:]))


def test_the_numbers_are_told():
    text = preview(pool_factor=4).describe()
    seen = Window(5).tokens
    assert "960 x 640 pixels are 60 x 40 tokens of 16 pixels." in text
    assert f"row 20, column 30 sees {seen} of 2,400 ({seen / 2400:.1%})" in text
    assert "9 tokens or 144 pixels across." in text
    assert "pixels across, cut at the border." in preview(at=(39, 30)).describe()
    assert "a tile of 8 x 4 tokens, which loads 16 x 12 of them" in text
    assert "all 150 pooled cells of 4 x 4 tokens" in text
    assert "pooled" not in preview(pool_factor=1).describe()


@pytest.mark.parametrize(
    ("share", "edge_px", "token"),
    [(0.0, 100, 0), (1.0, 100, 6), (1.0, 96, 5), (0.5, 1024, 32), (0.49999, 1024, 31), (1.0, 1, 0)],
)
def test_a_share_of_an_edge_is_the_token_there(share, edge_px, token):
    assert token_at(share, edge_px, TOKEN_PX) == token


def test_an_empty_picture_shows_its_tokens():
    picture = blank(40, 50, TOKEN_PX)
    assert picture.shape == (1, 40, 50, 3)
    assert picture[0, 0, 0, 0] != picture[0, 0, 16, 0] == picture[0, 16, 0, 0]
    assert picture[0, 15, 15, 0] == picture[0, 0, 0, 0] == picture[0, 16, 16, 0]
