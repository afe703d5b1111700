"""The sheet: legible titles, a fixed scale of differences, a size that can be sent."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from clear_attention.compare.measurement import ANOTHER_SEED, Distance, Measurement

TEACHER = "model, full attention"


@pytest.fixture
def sheet(product):
    return product("comfyui.compare.sheet")


def noise(height, width, seed=0):
    return torch.rand(height, width, 3, generator=torch.Generator().manual_seed(seed))


def png_of(picture):
    file = io.BytesIO()
    Image.fromarray((picture.numpy() * 255).astype(np.uint8)).save(file, "PNG")
    return file.getbuffer().nbytes


def row_of(product, pictures, fault=""):
    distance = Distance((0.01,) * 4, (1.0,) * 4, 0.01, 0.9)
    measurements = {
        name: Measurement(name, "5", distance, 1.5, 0.25, fault if name == "r = 8" else "")
        for name in pictures
    }
    return product("comfyui.compare.run").Row(5, 0, pictures, measurements)


@pytest.mark.parametrize(("rows", "columns"), [(2, 4), (16, 14)])
def test_a_sheet_of_noise_is_below_eight_megabytes(sheet, rows, columns):
    cell = sheet.Cell(noise(520, 400), "seed 7\n1.23 s")
    cells = [[cell] * columns] * rows
    drawn = sheet.draw([f"a model with a name {at}" for at in range(columns)], cells)
    assert png_of(drawn) < 8_000_000
    assert drawn.shape[1] >= columns * sheet.LEAST_PX


def test_a_picture_is_shrunk_to_its_mean_and_a_small_one_is_repeated(sheet):
    big = noise(1024, 512)
    assert sheet.shrunk(big, 256).shape == (256, 128, 3)
    # Each pixel is the mean of 4 x 4: no light is lost.
    torch.testing.assert_close(sheet.shrunk(big, 256).mean(), big.mean(), rtol=1e-5, atol=0)
    assert sheet.shrunk(noise(9, 11), 256).shape == (9, 11, 3)
    small = sheet._image(sheet.Cell(noise(9, 11)), 256, 12)
    assert small.size == (11 * 23, 9 * 23)


def test_differences_have_one_scale_in_every_sheet(sheet, product):
    full = torch.full((8, 8, 3), 0.5)
    for change, shown in ((0.1, 0.4), (-0.1, 0.4), (0.3, 1.0)):
        found = sheet._difference(full + change, full)
        torch.testing.assert_close(found, torch.full_like(full, shown))
    pictures = {TEACHER: full, "r = 8": full + 0.1, ANOTHER_SEED: full}
    drawn = sheet.sheet_of([row_of(product, pictures)], TEACHER, ["r = 8"], 6)
    values = {tuple(value) for value in (drawn.reshape(-1, 3) * 255).round().int().tolist()}
    assert {(128,) * 3, (153,) * 3, (102,) * 3} <= values


@pytest.mark.parametrize(("fault", "ink"), [("", (102, 102, 102)), ("black", (176, 0, 0))])
def test_what_failed_is_written_in_red(sheet, product, fault, ink):
    pictures = dict.fromkeys((TEACHER, "r = 8", ANOTHER_SEED), torch.ones(64, 64, 3))
    drawn = sheet.sheet_of([row_of(product, pictures, fault)], TEACHER, ["r = 8"], 6)
    values = {tuple(value) for value in (drawn.reshape(-1, 3) * 255).round().int().tolist()}
    red = (176, 0, 0)
    assert ink in values and (red in values) == bool(fault)


def test_a_model_without_colours_says_what_to_connect(sheet, product):
    pictures = dict.fromkeys((TEACHER, "r = 8", ANOTHER_SEED))
    drawn = sheet.sheet_of([row_of(product, pictures)], TEACHER, ["r = 8"], 6)
    grey = (drawn * 255).round() == 221
    assert grey.all(-1).float().mean() > 0.5
    assert (drawn < 0.2).any()  # the sentence in it


def test_long_titles_are_wrapped_within_their_column(sheet):
    lines = sheet._wrapped("clear_local_16_down_4_of_some_model.safetensors, r = 16", 120, 10)
    assert len(lines) > 1
    assert max(map(len, lines)) <= 120 / 5.5
