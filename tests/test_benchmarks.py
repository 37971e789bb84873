"""The benchmarks work; how fast anything is, no test says."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import vgx
from vgx.cli import run_program
from vgx.engine.engine import Engine
from vgx.sampling.draw import decoded, draw_latents, prepare
from vgx.sampling.model import current_model
from vgx_report.compare import RunData

ROOT = Path(__file__).parents[1]


@pytest.mark.chaos
def test_the_performance_tables_are_written(tmp_path):
    page = tmp_path / "performance.md"
    command = [sys.executable, ROOT / "benchmarks" / "performance.py", "--quick", "--out", page]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert re.findall(r"^## (\w+)", text, re.MULTILINE) == [
        "Training", "Tried", "Step", "Data", "Sampling", "Starting",
    ]  # fmt: skip
    rows = re.findall(r"^\| (?!---|batch|what|command|operations)(.*) \|$", text, re.MULTILINE)
    ranges = [re.findall(r"(\d+\.\d+) \[(\d+\.\d+)\.\.(\d+\.\d+)\]", row) for row in rows]
    assert sum(map(bool, ranges)) >= 24
    for figures in ranges:
        assert all(float(least) <= float(m) <= float(most) for m, least, most in figures)
    # Where a step spends its time is all of its time.
    shares = text.partition("| operations | share |")[2].partition("\n\n")[0]
    assert 96 <= sum(map(int, re.findall(r"(\d+) %", shares))) <= 104


@pytest.mark.slow
def test_the_gallery_page_is_what_its_files_say(tmp_path):
    """`--page` writes it anew from the pictures' files: nothing on it was written by hand."""
    page = (ROOT / "docs" / "gallery.md").read_text()
    program = (
        "import sys, gallery, gallery_page\n"
        "from pathlib import Path\n"
        f"page = gallery_page.PAGE = Path({str(tmp_path / 'gallery.md')!r})\n"
        f"page.write_text(Path({str(ROOT / 'docs' / 'gallery.md')!r}).read_text())\n"
        "sys.argv = ['gallery', '--page']\n"
        "gallery.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT / "benchmarks",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "gallery.md").read_text() == page
    names = re.findall(r"^## \[`(\w+)`\]", page, re.MULTILINE)
    assert names == [name for name in names if (ROOT / "docs" / "gallery" / f"{name}.png").exists()]


@pytest.mark.parametrize(("program", "page"), [("designs", "designs"), ("hour", "three-models")])
def test_a_page_of_trainings_is_what_its_files_say(benchmark, monkeypatch, tmp_path, program, page):
    module, text = benchmark(program), (ROOT / "docs" / f"{page}.md").read_text()
    copy = tmp_path / "page.md"
    copy.write_text(text)
    monkeypatch.setattr(module, "PAGE", copy)
    module.write_page()
    assert copy.read_text() == text


@pytest.mark.chaos
def test_models_train_on_a_folder_for_the_same_time(tmp_path):
    folder, made = tmp_path / "faces", tmp_path / "made"
    folder.mkdir()
    for number, colour in enumerate(torch.randint(256, (120, 3)).tolist()):
        Image.new("RGB", (96, 96), tuple(colour)).save(folder / f"{number}.png")
    command = [sys.executable, ROOT / "benchmarks" / "hour.py", "vae", "--path", folder]
    command += ["--seconds", "3", "--seeds", "1", "--results", made, "--runs", tmp_path / "runs"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    cost = json.loads((made / "costs.json").read_text())["vae"]
    results = json.loads((made / "vae.0.json").read_text())
    assert results["steps"] == round(3 / cost)
    assert {"psnr", "detail", "gaussian-mixture coverage", "prior coverage"} <= {
        *results["figures"]
    }
    with Image.open(tmp_path / "runs" / "vae.0.png") as image:
        assert image.width == 10 * (96 + 2) + 2  # ten in a row, with lines between them


def test_the_quickstart_is_the_design_that_won(benchmark):
    design = benchmark("design_entries").QUICKSTART
    others = {"name": "same", "train.steps": 1}
    won = vgx.load_recipe(vgx.load_recipe("anime_vaegan", [*design]), others)
    assert won == vgx.load_recipe(vgx.load_recipe("quickstart"), others)


def test_a_line_of_a_design_has_the_figures_of_each_seed(benchmark):
    figures = {"psnr": 20.01, "detail": 0.5636, "perceptual": 0.02639}
    drawn = {"frechet-distance": 12.34, "coverage": 0.5}
    for sampler in ("gaussian-mixture", "prior"):
        figures |= {f"{sampler} {name}": value for name, value in drawn.items()}
    figures["gaussian-mixture checkerboard"] = 1.254
    made = {"sampler": "gaussian-mixture", "steps": 1351, "figures": figures}
    other = {**made, "figures": {**figures, "psnr": 19.5}}
    pairs = ["0.564 0.564", "0.0264 0.0264"]
    drawn = ["12.3 12.3", "0.5 0.5"]
    line = benchmark("designs").row("seldom", [made, other])
    assert line == ["`seldom`", "1,351", "20.0 19.5", *pairs, *drawn, "1.25 1.25", *drawn]
    gan = {"sampler": "prior", "steps": 99, "figures": {"prior frechet-distance": 1.5}}
    line = benchmark("designs").row("dcgan", [gan])
    assert line == ["`dcgan`", "99", "-", "-", "-", "1.5", "-", "-", "1.5", "-"]


@pytest.fixture
def benchmark(monkeypatch):
    """Import modules of benchmarks/, and forget them after the test."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    yield importlib.import_module
    for file in (ROOT / "benchmarks").glob("*.py"):
        sys.modules.pop(file.stem, None)


def measured(device, **figures):
    """What gallery.py writes of a training, worked out by hand."""
    text = {"sampler": "prior", "steps": 9, "of": 9, "images": 576, "seconds": 4, "size": 64}
    losses = {"bce": [0.75, 0.5]}
    return {**text, "device": device, "settings": ["a.b=[1, 2]"], "losses": losses, **figures}


def test_a_section_of_the_gallery_shows_two_trainings_and_their_figures(
    benchmark, monkeypatch, tmp_path
):
    page = benchmark("gallery_page")
    monkeypatch.setattr(page, "FOLDER", tmp_path)
    (tmp_path / "dcgan_ada.before.png").touch()
    real = {"frechet-distance": 0.125, "coverage": 0.9375}
    with_ada = {"prior": {"frechet-distance": 2.0, "coverage": 0.5}, "real images": real}
    without = {"prior": {"frechet-distance": 8.0, "coverage": 0.25}, "real images": real}
    with_ada["discriminator"] = {"taken-for-real-held-out": 0.75}
    made = {
        "dcgan_ada": measured("a GPU", figures=with_ada),
        "dcgan_ada.without": measured("a GPU", figures=without, of=20),
    }
    text = page.section("dcgan_ada", made)
    assert text.startswith("## [`dcgan_ada`](../recipes/dcgan_ada.yaml)\n\nDCGAN of few images")
    assert "```sh\nvgx run dcgan_ada --set 'a.b=[1, 2]'\n```" in text
    assert "9 steps, 576 images, 4 s, on a GPU; images drawn by `prior`." in text
    assert "9 of 20 steps" in text
    assert text.count("before its second stage") == 1
    assert text.index("(gallery/dcgan_ada.png)") < text.index("Without ADA:")
    assert text.index("Without ADA:") < text.index("(gallery/dcgan_ada.without.png)")
    table = (
        "| on images that were held out | `dcgan_ada` | without ADA | real images |\n"
        "| --- | --- | --- | --- |\n"
        "| `prior`: Frechet distance [random-conv] (less is better) | 2 | 8 | 0.125 |\n"
        "| `prior`: coverage [random-conv] (more is better) | 0.5 | 0.25 | 0.9375 |\n"
        "| `discriminator`: share of held-out images taken for real | 0.75 | - | - |\n\n"
        "| term | at the start | at the end |\n| --- | --- | --- |\n| `bce` | 0.75 | 0.5 |"
    )
    assert text.endswith(table)


def test_a_discriminator_that_knows_its_training_images_by_heart_is_seen(benchmark):
    gallery = benchmark("gallery")
    settings = {"image.size": 16, "dataset.fallback.count": 6, "dataset.fallback.seed": 5}
    recipe = vgx.load_recipe(ROOT / "recipes" / "dcgan.yaml", settings)
    held = gallery.faces(recipe, gallery.HELD, 8)
    known = gallery.faces(recipe, 5, 6).batch(0, 6, "cpu")
    known = torch.cat([known, held.batch(0, 2, "cpu")])

    def discriminator(images):
        same = (images[:, None] == known).flatten(2).all(2).any(1, keepdim=True)  # [B, 1]
        return vgx.Score(same.float() - 0.5)

    codes = torch.zeros(1)
    model = SimpleNamespace(recipe=recipe, encoder=None, discriminator=discriminator, codes=codes)
    expected = {"taken-for-real-training": 1.0, "taken-for-real-held-out": 0.25}
    assert gallery.taken_for_real(model, held) == expected
    model.encoder = object()  # pairs may be judged, not images alone
    assert gallery.taken_for_real(model, held) == {}


def test_a_recipe_with_classes_shows_each_latent_in_every_class(benchmark):
    settings = {"encoder.inner.widths": [8], "decoder.inner.widths": [8], "image.size": 16}
    recipe = vgx.load_recipe("cvae", {**settings, "dataset.count": 8})
    model = current_model(Engine(recipe, 10), 1)
    ready = replace(prepare(model), names=tuple("abcdef"))
    images, names = benchmark("gallery").of_classes(model, ready, 3, 5)
    assert names == tuple("abcdef")
    latents = draw_latents(ready, 3, 5).z
    assert latents.unique(dim=0).shape == latents.shape == (3, 32)
    for label, row in enumerate(images.split(3)):
        expected = torch.cat([*decoded(model, latents, torch.full([3], label))])
        torch.testing.assert_close(row, expected)
    assert images.shape == (18, 3, 16, 16)
    assert not torch.equal(images[:3], images[3:6])


def test_the_finest_pattern_is_one_of_two_pixels(benchmark):
    checkerboard = benchmark("designs").checkerboard
    noise = torch.rand(200, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert checkerboard(noise) == pytest.approx(1, abs=0.05)  # all frequencies alike
    columns = 0.1 * (-1.0) ** torch.arange(32)
    both = checkerboard(noise + columns), checkerboard(noise + columns[:, None])
    # The power of noise is its variance, 1 / 36 in grey, times the sum of squares of the window,
    # 31 * 3 / 8; that of the pattern is the square of 0.1 times the sum of the window, 31 / 2. One
    # of the two directions has it.
    expected = 1 + 0.01 * 15.5**2 / (31 * 3 / 8 / 36) / 2
    assert both == pytest.approx((expected, expected), rel=0.05)


def test_entries_of_the_gallery_are_recipes_of_32_or_64_pixels(benchmark):
    entries = benchmark("gallery_entries").ENTRIES
    recipes = {path.stem for path in (ROOT / "recipes").glob("*.yaml")}
    others = {name for name in recipes if name.startswith("anime_")} | {"quickstart", "tiny"}
    assert recipes - others <= {*entries}
    for name, entry in entries.items():
        if (recipe := entry.recipe or name) in recipes:
            loaded = vgx.load_recipe(ROOT / "recipes" / f"{recipe}.yaml", entry.overrides(0.5))
            assert loaded.image.size in (32, 64), name
            assert loaded.train.steps == entry.steps // 2, name
            assert bool(loaded.prior) == bool(entry.prior), name
            assert loaded.prior is None or loaded.prior.steps == entry.prior // 2, name


@pytest.mark.chaos
def test_a_training_of_the_gallery_that_fails_ends_no_other(benchmark, monkeypatch, tmp_path):
    made = tmp_path / "made"
    command = [sys.executable, ROOT / "benchmarks" / "gallery.py", "dcgan", "vae", "--n", "16"]
    command += ["--results", made, "--runs", tmp_path / "runs", "--share", "0.0005"]
    settings = {"encoder.widths": "[8, 8]", "decoder.widths": "[8, 8]", "train.batch": 8}
    settings |= {"dataset.fallback.count": 24, "image.size": 32}
    command += [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    failed, results = (json.loads((made / f"{n}.json").read_text()) for n in ("dcgan", "vae"))
    assert "exit code 1" in failed["failed"]
    assert "encoder" in failed["failed"]  # dcgan has none
    assert (results["steps"], results["images"], results["sampler"]) == (3, 24, "prior")
    assert {*results["figures"]} == {"reconstruction", "prior", "real images"}
    assert "train.batch=8" in results["settings"]
    with Image.open(made / "vae.png") as image:
        assert image.size == (10 * 66 + 2, 4 * 66 + 2)  # doubled to 64 pixels
    gallery = benchmark("gallery")
    monkeypatch.setattr(gallery, "FOLDER", tmp_path)
    gallery.take(made)
    assert {path.name for path in tmp_path.glob("*.*")} == {"vae.json", "vae.png"}


def test_programs_that_run_side_by_side_leave_their_errors(benchmark, tmp_path):
    side_by_side = benchmark("side_by_side")
    programs = {
        "good": "print('fine')",
        "bad": "raise SystemExit('it went wrong')",
        "slow": "import time; time.sleep(60)",
    }
    names = ["slow", "bad", "good"]
    assert not side_by_side.run_all(names, lambda n: ["-c", programs[n]], tmp_path, 3, 3)
    assert {path.name for path in tmp_path.glob("*.json")} == {"bad.json", "slow.json"}
    said = {name: (tmp_path / f"{name}.json").read_text() for name in ("bad", "slow")}
    assert "exit code 1: it went wrong" in said["bad"]
    assert "it was ended after 3 s" in said["slow"]
    assert (tmp_path / "good.log").read_text() == "fine\n"
    assert side_by_side.run_all(["good"], lambda n: ["-c", programs[n]], tmp_path, 1, None)


def test_the_seed_recipe_is_compared_column_by_column(benchmark, monkeypatch, tmp_path):
    seed = benchmark("seed_recipe")
    for number, psnr in enumerate((18.0, 18.25)):
        trained = {"reconstruction": {"psnr": psnr}, "prior": {"coverage": 0.5}}
        averaged = {"reconstruction": {"psnr": psnr + 1}, "prior": {"coverage": 0.75}}
        rest = {"weighted-mix": {}, "gaussian-mixture": {}, "real images": {"coverage": 0.875}}
        results = {"steps": 7, "images": 448, "device": "a GPU"}
        for weights, own in (("trained", trained), ("averaged", averaged)):
            results[weights] = {**rest, **own, "held out": 9}
        (tmp_path / f"seed-{number}.json").write_text(json.dumps(results))
    (tmp_path / "ours-0.json").write_text('{"failed": "exit code 1: "}')
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n<!-- figures -->\nold\n<!-- end -->\n\nSeen: a face.\n")
    monkeypatch.setattr(seed, "PAGE", page)
    for _ in range(2):
        seed.write_page(tmp_path)
        assert page.read_text() == (
            "# Title\n\n<!-- figures -->\n\n"
            "7 steps, 448 images seen, 9 images held out; on a GPU.\n\n"
            "| on images that were held out | `anime_vaegan_seed` | with our average |"
            " training images |\n| --- | --- | --- | --- |\n"
            "| PSNR, dB (more is better) | 18, 18.25 | 19, 19.25 |  |\n"
            "| `prior`: coverage [random-conv] (more is better) | 0.5, 0.5 | 0.75, 0.75 |"
            " 0.875 |\n\n"
            "<!-- end -->\n\nSeen: a face.\n"
        )


def test_each_variant_of_the_seed_recipe_differs_in_one_thing(benchmark):
    variants = benchmark("seed_recipe").VARIANTS
    flat = {}
    for name, (recipe, settings) in variants.items():
        loaded = vgx.load_recipe(ROOT / "recipes" / f"{recipe}.yaml", settings)
        flat[name] = loaded.model_dump(mode="json", exclude={"name"})
    changed = {
        name: {key for key in flat["seed"] if flat[name][key] != flat["seed"][key]} for name in flat
    }
    assert changed == {
        "seed": set(), "rotation": {"augment"}, "rates": {"train"}, "ours": {"augment", "train"},
    }  # fmt: skip
    assert flat["rates"]["train"] == flat["ours"]["train"]
    assert flat["rotation"]["augment"] == flat["ours"]["augment"]


def vae_networks():
    from vgx.engine.engine import Engine

    return Engine(vgx.load_recipe(ROOT / "recipes" / "vae.yaml"), 10).networks.values()


@pytest.mark.chaos
def test_a_plain_loop_and_vgx_take_turns_on_the_device_that_is_there(tmp_path):
    page = tmp_path / "performance.md"
    page.write_text("# Performance\n\n## Training\n\nBefore.\n")
    command = [sys.executable, ROOT / "benchmarks" / "gpu.py", "--quick", "--out", page]
    command += ["--device", "cpu", "--devices", "1,2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert re.findall(r"^## (.*)", text, re.MULTILINE) == ["Training", "On a GPU"]
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in text.splitlines()
        if line.startswith(("| `vae`, 4 |", "| `anime_vaegan`, 4 |"))
    ]
    assert [row[0] for row in rows] == ["`vae`, 4"] * 3 + ["`anime_vaegan`, 4"] * 3
    assert [row[1].partition(",")[0] for row in rows] == ["plain loop", "vgx", "vgx"] * 2
    assert all(float(row[4]) > 0 for row in rows)  # milliseconds
    gigaflop = [row[6] for row in rows]
    assert gigaflop[0] == gigaflop[1]  # the same networks
    assert float(gigaflop[4]) < float(gigaflop[3])  # vgx saves a pass of the discriminator
    one, two = (
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in text.splitlines()
        if line.startswith(("| 1 |", "| 2 |"))
    )
    assert (one[2], one[3], one[4], one[6]) == ("1.00", "0", "0.0", "-")
    assert one[7] == two[7] == gigaflop[1]  # the same work for an image
    # Of 5 BatchNorm layers a sum each way; latents and their KL, which samplers use; all gradients
    # together.
    weights = sum(p.numel() for n in vae_networks() for p in n.parameters())
    assert int(two[3]) == 2 * 5 + 2 + 1
    assert float(two[4]) == pytest.approx(4e-6 * weights, abs=0.1)


@pytest.mark.chaos
def test_several_processes_take_turns_with_one(benchmark, tmp_path):
    page, values = tmp_path / "performance.md", tmp_path / "times.json"
    page.write_text("# Performance\n\n## Training\n\nBefore.\n")
    command = [sys.executable, ROOT / "benchmarks" / "processes.py", "--quick"]
    command += ["--out", page, "--json", values]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert re.findall(r"^## (.*)", text, re.MULTILINE) == ["Training", "Several processes"]
    tiny = json.loads(values.read_text())["tiny"]["candidates"]
    local_name, lonely_name = "2 processes, `batch_norm: local`", "2 processes that share nothing"
    assert [*tiny] == ["1 process of 2 threads", "2 processes", local_name, lonely_name]
    one, both, local, lonely = tiny.values()
    assert one["sums"] == lonely["sums"] == 0
    sums_of = benchmark("processes").sums_of  # of the same recipe, without processes
    paper = [len(sums_of("tiny", name)) for name in ("global", "local")]
    assert both["sums"] - local["sums"] == paper[0] - paper[1] > 0
    assert local["bytes"] < both["bytes"]
    for each in tiny.values():
        assert min(*each["images/s"], *each["cpu"]) > 0
    assert 0 < both["shares"]["all-reduce"] < 1
    assert len(re.findall(r"^\| `tiny`, 8 \|", text, re.MULTILINE)) == 4 + 2


def test_sums_on_paper_are_those_of_a_ring_or_a_tree(benchmark):
    """By hand: 4 processes, 100 bytes at 10 bytes/s, and no latency or a long one."""
    seconds_of = benchmark("processes").seconds_of
    assert seconds_of([100], 4, 10.0, 0.0) == 2 * 3 / 4 * 10
    assert seconds_of([100], 4, 10.0, 100.0) == 2 * 2 * (100 + 10)  # a tree of two levels
    assert seconds_of([100, 100], 2, 10.0, 1.0) == 2 * (2 * 1 + 10)
    sums = {name: benchmark("processes").sums_of("tiny", name) for name in ("global", "local")}
    weights = 4 * trained_numbers("tiny")
    assert weights <= max(sums["local"]) <= weights + 100  # and the terms
    assert max(sums["local"]) == max(sums["global"])
    assert len(sums["global"]) > len(sums["local"])


def trained_numbers(recipe):
    from vgx.engine.engine import Engine

    engine = Engine(vgx.load_recipe(ROOT / "recipes" / f"{recipe}.yaml"), 10)
    return sum(p.numel() for player in engine.players.values() for p in player.parameters)


def test_draws_for_all_images_are_timed(benchmark):
    module = benchmark("processes")
    module.DRAWN = ((2,),)
    rows = re.findall(r"^\| (\d+) \| ([\d,]+) \|", module.drawn(4), re.MULTILINE)
    assert rows == [("1", "4"), ("8", "32"), ("64", "256")]


@pytest.fixture
def three_models(benchmark):
    return benchmark("three_models")


@pytest.fixture
def streaming(benchmark):
    return benchmark("streaming")


class Forked:
    """What the benchmark needs of `subprocess.Popen`, by a program that is forked."""

    def __init__(self, forkserver, folder, command, stdout):
        self.child = forkserver.start(folder, *command[3:])
        self.pid, self.code = self.child.pid, None
        self.send_signal = self.child.kill

    def poll(self):
        if self.code is None:
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2]
            self.code = self.child.wait() if state.startswith("Z") else None
        return self.code

    def wait(self):
        self.code = self.child.wait() if self.code is None else self.code
        return self.code


def test_the_three_models_are_recipes_of_one_size(three_models):
    for data in ("drawn-faces", "anime-faces"):
        settings = [three_models.dataset(data, Path("faces")), *three_models.SHARED]
        recipes = [
            vgx.load_recipe(ROOT / "recipes" / f"{name}.yaml", [*settings, *more])
            for name, more in three_models.MODELS.items()
        ]
        assert {recipe.image.size for recipe in recipes} == {64}
        assert {recipe.latent.shape for recipe in recipes} == {(256,)}
        assert {recipe.dataset.type for recipe in recipes} <= {"drawn-faces", "huggingface"}


def test_the_three_models_page_keeps_what_is_written_by_hand(three_models, monkeypatch, tmp_path):
    monkeypatch.setattr(three_models, "PAGE", tmp_path / "page.md")
    hand = "# Title\n\n<!-- drawn-faces -->\n{}<!-- end -->\n\nSeen: a face.\n"
    three_models.PAGE.write_text(hand.format(""))
    figure = {"mean": 20.04, "spread": 0.5, "values": [20.0], "better": "higher"}
    part = {"pictures": 9, "split": "held out", "figures": {"psnr": figure}}
    said = {"format": 2, "data": {"content": ""}, "metrics": [], "features": []}
    said |= {"reconstruction": part}
    line = {"losses": {"l1": 0.5}, "seconds": 720.4, "step": 1500, "images": 96000}
    shown = [
        RunData(None, name, "stopped", {}, {}, {}, evaluated, [line])
        for name, evaluated in (("0001-vae", said), ("0002-gan", {}))
    ]
    table = (
        "|  | vae | gan |\n| --- | --- | --- |\n| seconds in training | 720 | 720 |\n"
        "| steps | 1,500 | 1,500 |\n| images seen | 96,000 | 96,000 |\n"
        "| reconstruction: psnr (more is better) | 20.04 ± 0.5 | - |\n"
    )
    for _ in range(2):
        shown_table = three_models.section(shown)
        three_models.write_between(three_models.PAGE, "drawn-faces", shown_table)
        assert three_models.PAGE.read_text() == hand.format(table)
    with pytest.raises(SystemExit, match="no place for anime-faces"):
        three_models.write_between(three_models.PAGE, "anime-faces", "")


@pytest.mark.slow
def test_the_time_of_a_list_is_measured(benchmark, monkeypatch, capsys, no_pages):
    """The commands that it times run in this process, which spares six starts of Python."""
    listing, listed = benchmark("listing"), []

    def called(command, **_):
        assert run_program(command[3:]) == 0
        listed.append(capsys.readouterr().out)

    monkeypatch.setenv("VGX_CACHE", "")  # which the benchmark sets
    monkeypatch.setattr(listing, "subprocess", SimpleNamespace(run=called, DEVNULL=None))
    words = ["--runs", "3", "--lines", "40", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["listing.py", *words])
    listing.main()
    out = capsys.readouterr().out
    assert "3 runs, 40 lines in each log" in out
    assert len(re.findall(r"^\| `vgx .* \| \d+\.\d\d \[", out, re.MULTILINE)) == 3
    assert [text.count("-tiny") for text in listed] == [0, 1, 3] * 2


@pytest.mark.chaos
def test_a_stream_that_was_killed_ends_with_the_same_bits(
    streaming, forkserver, tmp_path, monkeypatch, capsys
):
    """`--count 100000`, the default, is for people; here 640 images, and the room for 64."""
    monkeypatch.setenv("VGX_CACHE_MAX", "")  # which the benchmark sets
    processes = SimpleNamespace(Popen=partial(Forked, forkserver, tmp_path), DEVNULL=None)
    monkeypatch.setattr(streaming, "subprocess", processes)
    words = ["--folder", str(tmp_path), "--count", "640", "--rows-per-group", "40"]
    monkeypatch.setattr(sys, "argv", ["streaming.py", *words, "--holdout", "0.1"])
    code, out = streaming.main(), capsys.readouterr().out
    assert code == 0, out
    assert re.search(r"Killed at step \d of 13; the last checkpoint was of \d", out)
    assert out.rstrip().endswith(": equal")
    assert len(re.findall(r"^\| (?:streamed|stored)", out, re.MULTILINE)) == 3


def test_the_table_of_stages_compares_equal_times(monkeypatch):
    """By hand: two repeats of six parts, of which the staged training has the last four."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    stages = importlib.import_module("stages")
    try:
        scratch = [[10.0, 11.0, 12.0, 13.0, 14.0, 15.0], [10.5, 11.5, 12.5, 13.5, 14.5, 15.5]]
        staged = [[11.5, 13.0, 14.25, 15.5], [12.0, 13.5, 14.75, 16.0]]
        results = [list(pair) for pair in zip(scratch, staged, strict=True)]
        rows = stages.text_of(results, 180, 0.2, 0.25).splitlines()[2:8]
        assert rows[1] == "| 60 | 11.00 11.50 | (48 pixels) |  |"
        assert rows[2] == "| 90 | 12.00 12.50 | 11.50 12.00 | -0.50 -0.50 |"
        assert rows[5] == "| 180 | 15.00 15.50 | 15.50 16.00 | +0.50 +0.50 |"
        for size in (48, 96):
            assert stages.recipe_of(size, None).image.size == size
    finally:
        for name in ("stages", "tables"):
            sys.modules.pop(name, None)
