"""CLEAR Parallel Decode: the picture of the host's tiled decode, to the last bit."""

from __future__ import annotations

import gc
import importlib
import logging
import threading
import time
import weakref

import pytest
import torch

CPU = torch.device("cpu")
SECONDS = 5.0


@pytest.fixture
def plain(host):
    """The host's own node as a function."""
    node = importlib.import_module("nodes").VAEDecodeTiled()

    def decode(vae, samples, tile_size, overlap):
        with torch.inference_mode():
            return node.decode(vae, {"samples": samples}, tile_size, overlap)[0]

    return decode


@pytest.fixture
def dealt(node_classes):
    """The node as a function."""

    def decode(vae, samples, tile_size, overlap, devices="cpu,cpu,cpu"):
        with torch.inference_mode():
            node = node_classes["CLEARParallelDecode"]
            return node.execute({"samples": samples}, vae, devices, tile_size, overlap).args[0]

    return decode


@pytest.fixture
def ahead(caplog):
    """How many tiles each decode had decoded ahead, and whether all of them were expected."""
    caplog.set_level(logging.INFO)

    def counted():
        lines = [line for line in caplog.messages if line.startswith("CLEAR Parallel Decode")]
        lines = [line for line in lines if "one device" not in line]
        return [(int(line.split()[3]), "were not expected" not in line) for line in lines]

    return counted


def latent(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def enlarged(tile):
    """Return what a network without layers might make of a tile."""
    return tile[:, :3].repeat_interleave(8, 2).repeat_interleave(8, 3)


def ranks():
    return [one for one in threading.enumerate() if one.name.startswith("CLEAR rank")]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert not ranks()


@pytest.fixture
def watched(vae, monkeypatch):
    """Call a function in each decode of the VAE's class; return the threads and networks."""
    decodes = []

    def watch(function=lambda number: None):
        kind = type(vae.first_stage_model)
        decode = kind.decode

        def seen(self, *args, **kwargs):
            decodes.append((threading.current_thread().name, id(self)))
            function(len(decodes))
            return decode(self, *args, **kwargs)

        monkeypatch.setattr(kind, "decode", seen)
        return decodes

    return watch


@pytest.mark.parametrize("devices", ["cpu,cpu", "cpu,cpu,cpu"])
@pytest.mark.parametrize(
    ("size", "tile", "overlap", "batch"),
    [((11, 14), 64, 32, 1), ((9, 12), 64, 0, 2), ((5, 6), 64, 64, 3)],
)
def test_the_picture_has_the_bits_of_the_hosts(
    size, tile, overlap, batch, devices, vae, plain, dealt, ahead
):
    samples = latent(batch, 16, *size)
    picture = dealt(vae, samples, tile, overlap, devices)
    assert torch.equal(picture, plain(vae, samples, tile, overlap))
    ((tiles, all_expected),) = ahead()
    assert all_expected
    assert tiles >= 3 * batch  # the host averages three tilings


def test_a_video_has_the_bits_of_the_hosts(video_vae, plain, dealt, ahead):
    samples = latent(1, 16, 3, 8, 12)
    picture = dealt(video_vae, samples, 64, 32)
    assert picture.shape == (9, 64, 96, 3)
    assert torch.equal(picture, plain(video_vae, samples, 64, 32))
    ((tiles, all_expected),) = ahead()
    assert all_expected
    assert tiles == 2


def test_each_tile_is_decoded_once_and_every_device_takes_some(vae, plain, dealt, watched, ahead):
    decodes = watched(lambda number: time.sleep(0.02))
    samples = latent(1, 16, 12, 12)
    plain(vae, samples, 64, 16)
    alone = len(decodes)
    del decodes[:]
    dealt(vae, samples, 64, 16)
    assert len(decodes) == alone == ahead()[0][0]
    assert {thread for thread, _ in decodes} == {f"CLEAR rank {number}" for number in (1, 2, 3)}
    assert len({network for _, network in decodes}) == len({*decodes}) == 3  # each has its own


def test_one_device_decodes_as_the_host_does(vae, plain, dealt, watched, ahead):
    samples = latent(1, 16, 9, 9)
    expected = plain(vae, samples, 64, 16)
    decodes = watched()
    assert torch.equal(dealt(vae, samples, 64, 16, "cpu"), expected)
    assert {*decodes} == {(threading.current_thread().name, id(vae.first_stage_model))}
    assert ahead() == []


def test_the_vae_stays_as_it_is(vae, plain, dealt):
    samples, before = latent(1, 16, 9, 9), dict(vars(vae))
    expected = plain(vae, samples, 64, 16)
    weights = {name: one.clone() for name, one in vae.first_stage_model.state_dict().items()}
    dealt(vae, samples, 64, 16)
    assert vars(vae) == before
    now = vae.first_stage_model.state_dict()
    assert all(torch.equal(now[name], weight) for name, weight in weights.items())
    assert torch.equal(plain(vae, samples, 64, 16), expected)


def test_copies_are_kept_for_the_next_picture_and_end_with_the_vae(host, dealt, product):
    import comfy.model_management
    import comfy.sd

    from demo.codec.vae_file import vae_weights

    vae = comfy.sd.VAE(sd=vae_weights())
    dealt(vae, latent(1, 16, 10, 10), 64, 0, "cpu,cpu")
    copies = product("comfyui.parallel.copies").COPIES
    (first,) = copies.of(vae.patcher, [CPU])
    dealt(vae, latent(1, 16, 10, 10), 64, 0, "cpu,cpu")
    (second,) = copies.of(vae.patcher, [CPU])
    assert first.model is second.model is not vae.first_stage_model
    kept = weakref.ref(first.model)
    comfy.model_management.unload_all_models()
    del vae, first, second
    gc.collect()
    assert kept() is None


@pytest.mark.parametrize("failing", [1, 4])
def test_an_error_on_one_device_ends_all(failing, vae, dealt, watched):
    def fail(number):
        if number == failing:
            raise RuntimeError("broken")
        time.sleep(0.01)

    decodes = watched(fail)
    start = time.perf_counter()
    with pytest.raises(RuntimeError, match="broken"):
        dealt(vae, latent(1, 16, 40, 40), 64, 32)
    assert time.perf_counter() - start < SECONDS
    assert len(decodes) < failing + 6  # each finishes its tile


def test_too_little_memory_is_the_hosts_own_error_and_names_the_device(vae, dealt, watched):
    import comfy.model_management

    def fail(number):
        if number == 3:
            raise torch.OutOfMemoryError("tried to allocate")

    watched(fail)
    said = r"cpu ran out of memory with a tile of \d+ x \d+ latent pixels.* \(tried to allocate\)"
    with pytest.raises(comfy.model_management.OOM_EXCEPTION, match=said):
        dealt(vae, latent(1, 16, 30, 30), 64, 32)


def test_an_interrupt_is_the_hosts_own_and_ends_all(vae, plain, dealt, watched):
    import comfy.model_management

    def press(number):
        if number == 3:
            comfy.model_management.interrupt_current_processing()

    decodes = watched(press)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        dealt(vae, latent(1, 16, 40, 40), 64, 32)
    assert len(decodes) < 9
    comfy.model_management.interrupt_current_processing(False)
    samples = latent(1, 16, 9, 9)
    assert torch.equal(dealt(vae, samples, 64, 32), plain(vae, samples, 64, 32))


def test_between_tiles_a_vae_of_other_layers_than_the_hosts_is_interrupted_too(
    vae, dealt, monkeypatch
):
    import comfy.model_management

    decoded = []

    def decode(self, tile):
        decoded.append(tile)
        if len(decoded) == 3:
            comfy.model_management.interrupt_current_processing()
        return enlarged(tile)

    monkeypatch.setattr(type(vae.first_stage_model), "decode", decode)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        dealt(vae, latent(1, 16, 60, 60), 64, 32)
    assert len(decoded) < 9


def test_tiles_that_were_not_expected_are_decoded_nevertheless(
    vae, plain, dealt, product, monkeypatch, ahead
):
    decode = product("comfyui.parallel.decode")
    of_pictures = decode.TILINGS["decode_tiled_"]
    wrong = {**decode.TILINGS, "decode_tiled_": lambda given: of_pictures(given)[::-1]}
    monkeypatch.setattr(decode, "TILINGS", wrong)
    samples = latent(1, 16, 9, 12)
    picture = dealt(vae, samples, 64, 16)
    assert torch.equal(picture, plain(vae, samples, 64, 16))
    ((_, all_expected),) = ahead()
    assert not all_expected


def test_only_a_few_tiles_wait_in_memory(vae, dealt, product, monkeypatch):
    deal = product("comfyui.parallel.deal")
    decode, waiting = deal.Deal.decode, []

    def late(self, tile):
        while len(waiting) == 0 and len(self._decoded) < 2 * deal.AHEAD:
            time.sleep(0.01)
        time.sleep(0.2 if not waiting else 0)
        waiting.append(len(self._decoded))
        return decode(self, tile)

    monkeypatch.setattr(deal.Deal, "decode", late)
    monkeypatch.setattr(type(vae.first_stage_model), "decode", lambda _, tile: enlarged(tile))
    dealt(vae, latent(1, 16, 24, 24), 64, 32, "cpu,cpu")
    assert len(waiting) > 20
    assert max(waiting) == 2 * deal.AHEAD


@pytest.mark.parametrize("shape", [(1, 64, 100), (1, 8, 1, 1, 4, 4)])
def test_what_is_no_picture_is_refused(shape, vae, dealt):
    with pytest.raises(ValueError, match=r"samples must be pictures, .* got \["):
        dealt(vae, torch.zeros(shape), 64, 32)


def test_a_vae_with_another_network_is_decoded_by_one_device(flux2_vae, plain, dealt, caplog):
    caplog.set_level(logging.INFO)
    samples = torch.randn(1, 128, 8, 8, generator=torch.Generator().manual_seed(2))
    assert torch.equal(dealt(flux2_vae, samples, 64, 16), plain(flux2_vae, samples, 64, 16))
    assert "another node has put a network of its own into this VAE" in caplog.text
