"""The parts of the page: its engine, its latents, its smaller files. None needs a browser."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import vgx
from vgx.sampling import model as models
from vgx_explore import engine, latents, precision, run_page

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
OLD = Path(__file__).parents[1] / "data" / "run-of-format-1"  # a VAE-GAN of 8 pixels
SCRIPT = (
    b"var a={},$b=1;a.at=import.meta.url;export{a as env,$b as default};\n//# sourceMappingURL=x"
)


# --- the engine --------------------------------------------------------------------------------


def packed(script=SCRIPT, wasm=b"\0asm"):
    """An archive as `npm pack` makes it, and the release that it is."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in ((engine.SCRIPT, script), (engine.WASM, wasm)):
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    data = stream.getvalue()
    sums = (hashlib.sha256(each).hexdigest() for each in (data, script, wasm))
    return data, engine.Release("9.9", *sums)


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """Put a program `npm` that does what it is told first on PATH; return the log of its calls."""

    def put(script):
        program = tmp_path / "bin" / "npm"
        program.parent.mkdir(exist_ok=True)
        log = tmp_path / "asked"
        program.write_text(f'#!/bin/sh\necho "$@" in "$PWD" >> {log}\n{script}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        return log

    return put


def packing(tmp_path, data):
    """What a program `npm` does that packs `data`."""
    (tmp_path / "packed.tgz").write_bytes(data)
    return f"cp {tmp_path / 'packed.tgz'} onnxruntime-web-9.9.tgz"


def test_the_engine_is_fetched_once_and_is_a_plain_script(npm, tmp_path):
    data, release = packed()
    log = npm(packing(tmp_path, data))
    first = engine.load(release=release)
    (tmp_path / "cache" / "onnxruntime-web-9.9" / engine.WASM).write_bytes(b"broken")
    second = engine.load(release=release)
    npm("exit 1")
    third = engine.load(release=release)
    calls = log.read_text().splitlines()
    assert len(calls) == 2  # the second time since the file was damaged
    for call in calls:
        words, _, folder = call.partition(" in ")
        assert words.startswith("pack onnxruntime-web@9.9 ")
        assert "--ignore-scripts" in words
        assert words.endswith(f"--prefix {folder}")
        assert not Path(folder).exists()
    assert first.wasm == second.wasm == third.wasm == b"\0asm"
    assert first.script == b"var a={},$b=1;a.at=self.location.href;\nself.ort = $b;\n"


def test_another_archive_is_refused_and_nothing_of_it_is_kept(npm, tmp_path):
    data, release = packed()
    other, _ = packed(wasm=b"other")
    npm(packing(tmp_path, other))
    with pytest.raises(vgx.HubError, match=f"instead of {release.archive}"):
        engine.load(release=release)
    file = tmp_path / "other.tgz"
    file.write_bytes(other)
    with pytest.raises(vgx.StorageError, match=r"npm pack onnxruntime-web@9\.9"):
        engine.load(file, release)
    assert not (tmp_path / "cache").exists()
    file.write_bytes(data)
    assert engine.load(file, release).wasm == b"\0asm"


FAILING = {
    "offline": ("exit 0", "nothing is fetched offline"),
    "not installed": (None, "install Node.js"),
    "failing": ("echo npm error code ENOTFOUND >&2; exit 3", "npm ended with exit code 3"),
    "packing nothing": ("exit 0", "No such file or directory"),
    "hanging": ("exec sleep 60", "timed out after 0.5 seconds"),
}


@pytest.mark.parametrize("why", FAILING)
def test_without_the_engine_it_is_said_what_to_do(why, npm, tmp_path, monkeypatch):
    script, said = FAILING[why]
    if script is None:
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        npm(script)
    if why == "offline":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    if why == "hanging":
        monkeypatch.setattr(engine, "TIMEOUT", 0.5)
    _, release = packed()
    before = time.monotonic()
    with pytest.raises(vgx.HubError) as raised:
        engine.load(release=release)
    assert time.monotonic() - before < 30
    text = str(raised.value)
    assert said in text
    assert ("ENOTFOUND" in text) == (why == "failing")
    assert "npm pack onnxruntime-web@9.9" in text
    assert "vgx explore RUN --engine onnxruntime-web-9.9.tgz" in text
    assert (tmp_path / "asked").exists() == (why not in ("offline", "not installed"))


# --- smaller files -----------------------------------------------------------------------------


def product(weights):
    """An ONNX file with one matrix product."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["latents", "w"], ["images"])],
        "product",
        [helper.make_tensor_value_info("latents", TensorProto.FLOAT, ["n", weights.shape[0]])],
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", weights.shape[1]])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def test_smaller_parameters_are_what_they_say():
    generator = np.random.default_rng(0)
    whole = generator.integers(-127, 128, (64, 64))
    whole[:, 0] = 127  # so that the scale of each row is its factor
    rows = (whole * (2.0 ** -np.arange(64))[:, None]).astype(np.float32)
    z = generator.normal(size=(3, 64)).astype(np.float32)
    data = product(rows)
    sizes = {kind: len(precision.shrunk(data, kind)) for kind in precision.KINDS}
    assert sizes["int8"] < 4096 + 1000 < sizes["float16"] < 8192 + 1000 < sizes["float32"]
    given = precision.run(precision.opened(precision.shrunk(data, "int8")), {"latents": z})
    # Each row is a whole number of times its own power of two, which int8 keeps exactly.
    np.testing.assert_allclose(given, z @ rows, rtol=1e-6, atol=1e-5)
    rough = generator.normal(size=(64, 64)).astype(np.float32)
    half = precision.run(
        precision.opened(precision.shrunk(product(rough), "float16")), {"latents": z}
    )
    np.testing.assert_allclose(half, z @ rough.astype(np.float16).astype(np.float32), atol=1e-5)


def test_the_smallest_kind_that_is_close_enough_is_taken():
    generator = np.random.default_rng(0)
    rough = (0.01 * generator.normal(size=(64, 64))).astype(np.float32)
    large = rough.copy()
    large[0, 0] = 1e6  # too large for 16 bits, and a step of 8,000 for its row and its column
    large[1:, 1:] *= 1e3
    z = generator.normal(size=(3, 64)).astype(np.float32)
    z[:, 0] = 1e-6

    def images(small):
        return torch.from_numpy(precision.run(precision.opened(small), {"latents": z}))

    kinds = []
    for weights, factor in ((rough, 1.0), (rough, 10.0), (large, 1.0)):
        wanted = torch.from_numpy(factor * (z @ weights))
        network = run_page._smallest(product(weights), lambda x, f=factor: f * images(x), wanted)
        kinds.append(network.kind)
        assert network.difference < run_page.CLOSE
    assert kinds == ["int8", "float16", "float32"]


# --- latents -----------------------------------------------------------------------------------


class Linear(torch.nn.Module):
    """A decoder in which latent 3 moves all pixels, latent 1 the left half, and no other any."""

    def forward(self, z):
        images = torch.zeros(len(z), 3, 16, 16)
        images += 0.5 * -z[:, 3].reshape(-1, 1, 1, 1)
        images[..., :8] += 0.2 * z[:, 1].reshape(-1, 1, 1, 1)
        return images


def model_of(decoder, codes, labels=None, **changes):
    recipe = vgx.load_recipe(TINY, changes)
    return vgx.Model(recipe, 1, codes, None, decoder, None, labels)


def test_the_strongest_directions_are_those_that_change_the_image_most():
    z = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
    faces = latents.Faces(z, None, "", renormalise=False)
    first, second, *others = latents.strongest_directions(model_of(Linear(), z), faces)
    assert others == []
    # Latent 3 makes images darker, and the right end is the brighter one.
    assert first.change[3] == pytest.approx(-1, abs=0.15)
    assert first.change.norm() == pytest.approx(1, abs=0.15)
    assert second.change[1].abs() == pytest.approx(1, abs=0.2)
    assert (first.right, second.right) == ("direction 1", "direction 2")


def test_a_class_is_a_difference_of_means_and_a_small_class_is_left_out():
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(100, 8, generator=generator)
    labels = torch.tensor([0] * 50 + [1] * 35 + [2] * 15)
    codes[labels == 0, 5] += 20
    model = model_of(Linear(), codes, labels, **{"image.classes": 3})
    found = latents.class_directions(model, ["round", "square", "rare"])
    assert [(each.left, each.right) for each in found] == [
        ("not round", "round"), ("not square", "square"),
    ]  # fmt: skip
    change = found[0].change
    # Half of the latents are 20 away, so their standard deviation along it is about 10.
    assert change[5] == pytest.approx(10, abs=0.5)
    assert change.norm() == pytest.approx(10, abs=0.5)
    two = latents.class_directions(
        model_of(Linear(), codes[:85], labels[:85], **{"image.classes": 2}), ["round", "square"]
    )
    assert [(each.left, each.right) for each in two] == [("round", "square")]
    assert two[0].change[5] < -9


@pytest.fixture
def run(tmp_path):
    return vgx.Run(shutil.copytree(OLD, tmp_path / "0001-old"))


def test_a_page_is_made_on_the_cpu_whatever_else_there_is(run, monkeypatch):
    """A device without values stands for a GPU: nothing that was there could come to the page."""
    monkeypatch.setattr(models, "pick_device", lambda device: torch.device(device or "meta"))
    model, faces = latents.draw_faces(run)
    assert {model.codes.device.type, faces.z.device.type} == {"cpu"}
    decoder, encoder = run_page.networks(run, model, faces, [])
    assert max(decoder.difference, encoder.difference) < run_page.CLOSE


def test_what_is_nearly_a_stored_latent_does_not_come_to_the_page(run):
    """As many mixtures with a low concentration, which are nearly one of three stored latents."""
    own = "concentration: 1.0"
    text = run.recipe_file.read_text()
    assert own in text
    run.recipe_file.write_text(text.replace(own, "concentration: 0.2"))
    model, faces = latents.draw_faces(run)
    between = (model.codes - model.codes.roll(1, 0)).norm(dim=1).median()
    assert "weighted-mix" in faces.origin
    assert latents.SHOWN <= len(faces.z) < latents.DRAWN
    assert torch.cdist(faces.z, model.codes).min() > 0.049 * between


def test_the_best_checkpoint_is_asked_for(run):
    with pytest.raises(vgx.RecipeError, match=r"no eval\.best"):
        latents.draw_faces(run, best=True)


def test_images_of_the_sampler_are_not_opened(run, recwarn):
    own = "{type: weighted-mix, of: 3, concentration: 1.0, anchors: shared}"
    text = run.recipe_file.read_text()
    assert own in text
    run.recipe_file.write_text(text.replace(own, f"{{type: reconstruct, path: {run.path}}}"))
    _, faces = latents.draw_faces(run)
    assert "weighted-mix (reconstruct opens images of its own)" in faces.origin
    assert [each for each in recwarn if "opening the images" in str(each.message)] == []


def test_the_page_has_no_message_that_names_the_folder_of_the_run(run):
    """The sampler's message is for the user; the page, which is sent to others, says less."""
    own = "{type: weighted-mix, of: 3, concentration: 1.0, anchors: shared}"
    text = run.recipe_file.read_text()
    run.recipe_file.write_text(text.replace(own, "{type: learned-prior}\nprior: transformer"))
    with pytest.warns(vgx.Notice, match=f"train one: vgx fit {run.path}"):
        _, faces = latents.draw_faces(run)
    assert "weighted-mix (learned-prior cannot draw here)" in faces.origin
    assert str(run.path) not in faces.origin


# --- text --------------------------------------------------------------------------------------


def test_no_text_becomes_markup_or_code():
    bad = "</script><script>document.title='gone'</script><!--"
    data = {"name": bad, "classes": [bad], "facts": [bad]}
    page = run_page.page(data, {"latents": b"<script>"})
    read = json.loads(re.search(r'<script type="application/json"[^>]*>(.*?)</script>', page)[1])
    assert read == data
    assert bad not in page
    assert "<title>&lt;/script&gt;" in page
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert policy.startswith("default-src 'none';")
    assert "unsafe-inline" not in policy
    assert re.findall(r"https?:", policy) == []


def test_an_image_that_no_browser_shows_is_refused(tmp_path, monkeypatch):
    model = model_of(Linear(), torch.zeros(3, 8), **{"image.channels": 5})
    monkeypatch.setattr(engine, "load", lambda *_: None)
    monkeypatch.setattr(run_page, "draw_faces", lambda _, best: (model, SimpleNamespace()))
    with pytest.raises(vgx.RecipeError, match="5 channels; a page shows 1, 3 or 4"):
        run_page.write_page(vgx.Run(tmp_path))
    with pytest.raises(vgx.RecipeError, match=r"page.txt: the name of a page must end in \.html"):
        run_page.write_page(vgx.Run(tmp_path), tmp_path / "page.txt")
