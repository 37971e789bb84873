"""Every sampler on a trained run, and what a fitted one leaves there."""

from __future__ import annotations

import os
import random
import shutil

import pytest
import safetensors.torch
import torch
from PIL import Image

import vgx
from vgx.errors import StorageError
from vgx.runs import summed
from vgx.sampling.draw import draw_latents, open_sampler
from vgx_builtin.samplers import fitted
from vgx_builtin.samplers.stored import Reconstruct

STATE = {"weights", "means", "factors"}


@pytest.fixture
def run(tiny_run, tmp_path):
    """A copy of the tiny run, to leave things in."""
    return shutil.copytree(tiny_run[2], tmp_path / "runs" / "0001-tiny")


@pytest.fixture
def folder(tmp_path):
    for name, colour in (("1.png", "red"), ("2.png", "blue"), ("3.png", "white")):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        Image.new("RGB", (20, 20), colour).save(tmp_path / "pictures" / name)
    return tmp_path / "pictures"


def draw(vgx_here, run, name, *settings, n=4, code=0):
    words = [word for setting in settings for word in ("--set", setting)]
    done = vgx_here("sample", run, "--sampler", name, *words, "-n", n, "--out", "out.png")
    assert done[0] == code, done
    return done[2] if code else (run.parents[1] / "out.png").read_bytes()


def fits(run):
    return sorted((run / "samplers").glob("*"))


@pytest.mark.parametrize(
    ("name", "settings", "columns"),
    [
        ("interpolate", ["steps=4"], 4),
        ("interpolate", ["mode=slerp", "between=prior"], 9),  # of a row of ten
        ("traversal", ["steps=4"], 4),
        ("traversal", ["dimensions=[3, 1]", "base=code", "span=2.5", "steps=5"], 5),
        ("truncation", ["threshold=0.5"], 3),
        ("neighbours", ["of=-1"], 3),
        ("gaussian-mixture", ["covariance=diag", "components=3"], 3),
        ("aggregate-gaussian", [], 3),
    ],
)
def test_a_sampler_draws_images_that_differ_in_its_own_rows(vgx_here, run, name, settings, columns):
    draw(vgx_here, run, name, *settings, n=9)
    rows = -(-9 // columns)
    with Image.open(run.parents[1] / "out.png") as grid:
        margin = grid.width - (columns * 18 + 2)
        assert grid.height == rows * 18 + 2
        assert (margin > 0) == (name == "traversal")  # its captions
        places = [(margin + 2 + 18 * i % (18 * columns), 2 + i // columns * 18) for i in range(9)]
        cells = {grid.crop((x, y, x + 16, y + 16)).tobytes() for x, y in places[:4]}
    assert len(cells) == 4


def test_a_row_of_a_grid_is_a_row_of_the_sampler_however_many_there_are(vgx_here, run):
    """30 images of three pairs, ten each: as a square there would be six columns."""
    draw(vgx_here, run, "interpolate", n=30)
    with Image.open(run.parents[1] / "out.png") as grid:
        assert grid.size == (10 * 18 + 2, 3 * 18 + 2)


def test_a_traversal_starts_with_the_dimension_of_the_largest_kl(vgx_here, run):
    model = vgx.load(run)
    _, prepared = open_sampler(run, "traversal", {"steps": 10})
    captions = draw_latents(prepared, 30, 0).captions
    order = model.kl.argsort(descending=True).tolist()
    names = [caption.split(",")[0] for caption in captions]
    assert names == [f"z{d}" for d in order[:3]]
    values = model.codes[:, order[0]].double()
    low, high = (values.mean() + side * 3 * values.std(correction=0) for side in (-1, 1))
    assert captions[0].endswith(f"{low:.2g} to {high:.2g}")


@pytest.mark.parametrize("name", ["gaussian-mixture", "aggregate-gaussian"])
def test_a_sampler_is_fitted_once_and_then_read(vgx_here, run, name, monkeypatch):
    first = draw(vgx_here, run, name)
    (kept,) = fits(run)
    assert kept.name.startswith(f"{name}-00000020-")
    before = kept.read_bytes()
    monkeypatch.setattr(fitted.FittedMixture, "fit", lambda *_: pytest.fail("it was fitted again"))
    assert draw(vgx_here, run, name) == first
    assert fits(run) == [kept]
    assert kept.read_bytes() == before
    more = vgx.sample(run, name, n=6)
    assert (more[:4] - vgx.sample(run, name, n=4)).abs().max() < 1e-6


def test_what_is_kept_is_what_was_fitted_to_the_runs_latents(vgx_here, run):
    draw(vgx_here, run, "gaussian-mixture", "components=3")
    (kept,) = fits(run)
    state = safetensors.torch.load_file(kept)
    drawer = fitted.GaussianMixture(components=3).build(vgx.LatentSpec((8,)))
    drawer.fit(vgx.load(run).codes)
    assert state.keys() == STATE
    for name, value in drawer.state_dict().items():
        assert (state[name] - value).abs().max() < 1e-9, name


def test_other_settings_are_fitted_by_themselves(vgx_here, run):
    pictures = {
        draw(vgx_here, run, "gaussian-mixture", f"components={components}")
        for components in (2, 3, 2)
    }
    assert len(pictures) == len(fits(run)) == 2


def damages(data):
    """Every kind of damage, twice; flips of single bits twenty times."""
    generator = random.Random(7)
    for _ in range(20):
        place, flipped = generator.randrange(len(data)), bytearray(data)
        flipped[place] ^= 1 << generator.randrange(8)
        yield bytes(flipped)
    for count in (generator.randrange(len(data)), len(data) - 1):
        yield data[:count]
    yield data + b"\0"
    yield b""


def learn_again(run, name, file, data):
    """Let a sampler find other bytes in its file: it is noticed, and the file is as before."""
    before = file.read_bytes()
    file.write_bytes(data)
    with pytest.warns(vgx.Notice, match=f"sampler {name}: learned again .*{file.name}"):
        images = vgx.sample(run, name, n=4)
    assert file.read_bytes() == before
    return images


def test_a_damaged_fit_is_noticed_and_learned_again(run):
    images = vgx.sample(run, "aggregate-gaussian", n=4)
    (kept,) = fits(run)
    for data in damages(kept.read_bytes()):
        assert torch.equal(learn_again(run, "aggregate-gaussian", kept, data), images)
    assert torch.equal(vgx.sample(run, "aggregate-gaussian", n=4), images)  # without a notice


def test_a_fit_of_an_earlier_version_or_of_other_latents_is_learned_again(run):
    vgx.sample(run, "aggregate-gaussian", n=1)
    (kept,) = fits(run)
    state = safetensors.torch.load_file(kept)
    learn_again(run, "aggregate-gaussian", kept, safetensors.torch.save(state))  # without a sum
    summed.write(kept, state, "other latents")
    other = kept.read_bytes()
    vgx.sample(run, "gaussian-mixture", n=1)
    mixture = next(file for file in fits(run) if file != kept)
    for data in (other, mixture.read_bytes()):
        kept.unlink()
        vgx.sample(run, "aggregate-gaussian", n=1)
        learn_again(run, "aggregate-gaussian", kept, data)


def unread(path):
    """What is known of a file or a link but the time when it was last read or followed."""
    about = path.lstat()
    return about.st_mode, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns


@pytest.mark.parametrize("how", ["pipe", "zero"])
def test_a_fit_that_is_no_file_keeps_nobody_waiting(run, how):
    vgx.sample(run, "aggregate-gaussian", n=1)
    (kept,) = fits(run)
    kept.unlink()
    if how == "pipe":
        os.mkfifo(kept)
    else:
        kept.symlink_to("/dev/zero")
    before = unread(kept)
    with (
        pytest.warns(vgx.Notice, match="learned again from the stored latents: .*not a regular"),
        pytest.warns(vgx.Notice, match="what it learned is not kept: .*nothing was written"),
    ):
        vgx.sample(run, "aggregate-gaussian", n=1)
    assert unread(kept) == before


def test_what_was_fitted_need_not_be_kept(vgx_here, run, monkeypatch):
    """In a run that cannot be written; root may write anywhere, so the refusal is acted."""
    expected = draw(vgx_here, run, "aggregate-gaussian")
    shutil.rmtree(run / "samplers")
    write = summed.replacing

    def refuse(path, *rest, **named):
        raise StorageError(f"{path}: Read-only file system")

    monkeypatch.setattr(summed, "replacing", refuse)
    with pytest.warns(vgx.Notice, match="what it learned is not kept: .*Read-only file system"):
        images = vgx.sample(run, "aggregate-gaussian", n=4)
    assert not fits(run)
    monkeypatch.setattr(summed, "replacing", write)
    assert draw(vgx_here, run, "aggregate-gaussian") == expected
    assert torch.equal(vgx.sample(run, "aggregate-gaussian", n=4), images)


def test_reconstruct_shows_a_folders_pictures_again(vgx_here, run, folder):
    draw(vgx_here, run, "reconstruct", f"path={folder}")
    model = vgx.load(run)
    images = vgx.sample(run, "reconstruct", n=4, settings={"path": str(folder)})
    colours = torch.tensor([[1.0, 0, 0], [0, 0, 1], [1, 1, 1], [1, 0, 0]])
    flat = colours[:, :, None, None].expand(-1, -1, 16, 16)
    assert (images - model.decode(model.encode(flat))).abs().max() < 1e-5


def test_the_images_of_a_sampler_are_looked_for_once(vgx_here, run, folder, monkeypatch):
    looked = []
    pictures = Reconstruct.pictures

    def counted(self, image):
        looked.append(self.path)
        return pictures(self, image)

    monkeypatch.setattr(Reconstruct, "pictures", counted)
    vgx.sample(run, "reconstruct", n=4, settings={"path": str(folder)})
    assert len(looked) == 1


def test_a_bad_picture_of_a_samplers_folder_is_said_with_what_helps_there(vgx_here, run, folder):
    (folder / "torn.png").write_bytes(b"torn")
    message = draw(vgx_here, run, "reconstruct", f"path={folder}", code=4)
    assert "torn.png: not an image" in message
    assert "Remove them from the sampler's path" in message
    assert "dataset" not in message


@pytest.mark.bar("Q1")
@pytest.mark.parametrize(
    ("name", "setting", "code", "expected"),
    [
        ("neighbours", "of=5000", 2, "of: 5000: the run has"),
        ("gaussian-mixture", "components=5000", 2, "components: 5000: the run has"),
        ("traversal", "dimensions=[8]", 2, "a latent has the dimensions 0 to 7"),
        ("interpolate", "mode=slurp", 2, "slerp"),
        ("reconstruct", "path=nowhere", 4, "nowhere: there is no such folder"),
    ],
)
def test_what_a_run_cannot_do_is_said(vgx_here, run, name, setting, code, expected):
    assert expected in draw(vgx_here, run, name, setting, code=code)
    assert fits(run) == []


def test_a_walk_is_animated(run, vgx_here):
    code, out, err = vgx_here("sample", run, "--sampler", "interpolate", "-n", 5, "--animate")
    file = run / "samples" / "interpolate-00000020-seed-0.webp"
    assert (code, err) == (0, "")
    assert f"Picture {file}" in out
    with Image.open(file) as film:
        assert film.n_frames == 5
    code, _, err = vgx_here("sample", run, "--animate", "--separate", "single")
    assert code == 2
    assert "Leave out --separate or --animate" in err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--out", "x.xyz"], "x.xyz: the name of a still image must end in .png, .jpg, .jpeg"),
        (["--out", "x"], "x: the name of a still image must end in"),
        (["--out", "x.gif"], "x.gif: the name of a still image must end in"),
        (["--animate", "--out", "x.jpg"], "the name of an animation must end in .webp, .gif or"),
        (["--separate", "full"], "full: other files are there, 1 in all, such as mine.png"),
    ],
)
def test_what_cannot_be_written_is_said_before_anything_is_drawn(
    run, vgx_here, monkeypatch, tmp_path, words, expected
):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.png").write_bytes(b"mine")
    monkeypatch.setattr(
        "vgx.sampling.draw.open_sampler", lambda *_, **__: pytest.fail("it was drawn")
    )
    before = {path.name for path in tmp_path.iterdir()}
    code, out, err = vgx_here("sample", run, "-n", 3, *words)
    assert (code, out) == (5 if "--separate" in words else 2, "")
    assert expected in err
    assert {path.name for path in tmp_path.iterdir()} == before
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.png"]


def test_a_grid_too_large_for_its_format_is_not_drawn(run, vgx_here, monkeypatch, tmp_path):
    monkeypatch.setattr("vgx.sampling.draw.draw_latents", lambda *_: pytest.fail("it was drawn"))
    code, _, err = vgx_here("sample", run, "-n", 10**6, "--out", "x.webp")
    assert code == 2
    assert "18,002 pixels wide or high, and a .webp file takes at most 16,383" in err
    assert not (tmp_path / "x.webp").exists()


@pytest.mark.parametrize(
    ("name", "kind", "animate"),
    [
        ("x.png", "PNG", False), ("x.jpg", "JPEG", False), ("x.webp", "WEBP", False),
        ("x.gif", "GIF", True), ("y.webp", "WEBP", True),
    ],
)  # fmt: skip
def test_the_file_is_what_its_name_says(run, vgx_here, tmp_path, name, kind, animate):
    words = ["--animate"] if animate else []
    code, _, err = vgx_here("sample", run, "-n", 4, "--out", tmp_path / name, *words)
    assert (code, err) == (0, "")
    with Image.open(tmp_path / name) as image:
        assert (image.format, getattr(image, "n_frames", 1)) == (kind, 4 if animate else 1)
        assert image.size == ((384, 384) if animate else (38, 38))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["report", "RUN", "--out", "x.pdf"], "x.pdf: the name of a page must end in .html"),
        (["compare", "RUN", "OTHER", "--out", "x.md"], "x.md: the name of a page must end in .ht"),
        (["explain", "RUN", "--svg", "x.png"], "x.png: the name of a drawing must end in .svg"),
    ],
)
def test_pages_and_drawings_have_their_endings_too(run, vgx_here, tmp_path, words, expected):
    other = shutil.copytree(run, tmp_path / "runs" / "0002-tiny")
    places = {"RUN": run, "OTHER": other}
    code, out, err = vgx_here(*[places.get(word, word) for word in words])
    assert (code, out) == (2, "")
    assert expected in err
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
