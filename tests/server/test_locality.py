"""The locality probe in a workflow: its outputs feed other nodes."""

from __future__ import annotations

from .pictures import pixels, prompt_of, text_to_image


def test_the_probe_chooses_the_dense_blocks_of_a_second_picture(server):
    prompt = prompt_of(server, text_to_image())
    place = {node["class_type"]: at for at, node in prompt.items()}
    sampler, decode = (prompt[place[kind]]["inputs"] for kind in ("KSampler", "VAEDecode"))
    model = prompt[place["CLEARLoader"]]["inputs"]["model"]

    def add(at, kind, **inputs):
        info = server.object_info()[kind]["input"].get("required", {})
        defaults = {name: spec[1]["default"] for name, spec in info.items() if "default" in spec[1]}
        prompt[at] = {"class_type": kind, "inputs": defaults | inputs}

    positive, finished = sampler["positive"], [place["KSampler"], 0]
    add("probe", "CLEARLocality", model=model, conditioning=positive, latent=finished, radius=2)
    add("plot", "SaveImage", images=["probe", 0], filename_prefix="plot")
    add("table", "PreviewAny", source=["probe", 1])
    chosen = {"dense_blocks": ["probe", 2], "backend": "auto"}
    add("local", "CLEARAttention", model=model, radius=2, **chosen)
    add("again", "KSampler", **{**sampler, "model": ["local", 0]})
    add("decoded", "VAEDecode", **{**decode, "samples": ["again", 0]})
    add("picture", "SaveImage", images=["decoded", 0], filename_prefix="picture")
    entry = server.run(prompt)
    (table,) = entry["outputs"]["table"]["text"]
    assert "double 0 " in table and "Radius 2 is enough for" in table
    sizes = {path.name.split("_")[0]: pixels(path).shape for path in server.images(entry)}
    assert sizes["plot"][1] > sizes["picture"][1] == 128
