"""`vgx run` and `vgx sample`: what lies in a run directory, and that it repeats to the bit."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

import vgx
from vgx.console import Console
from vgx.training import session

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"


def checkpoint_files(run, step=20):
    folder = run / "checkpoints" / f"step-{step:08}"
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


def size(path):
    with Image.open(path) as picture:
        return picture.size


def test_a_run_holds_the_files_of_the_contract(tiny_run):
    _, _, run = tiny_run
    assert run.name == "0001-tiny"
    for name in ("recipe.yaml", "environment.json", "log.jsonl", "samples/step-00000020.png"):
        assert (run / name).is_file(), name
    assert (run / "samples" / "recon-00000020.png").is_file()
    assert (run / "samples" / "weighted-mix-00000020-seed-0.png").is_file()
    environment = json.loads((run / "environment.json").read_text())
    assert environment["device"] == "cpu"
    assert environment["data"]["kept"] == 64
    assert environment["data"]["dropped"] == {}
    assert {"name": "builtin", "distribution": "vgx"}.items() <= environment["plugins"][0].items()


def test_the_log_has_a_line_a_step(tiny_run):
    _, _, run = tiny_run
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 21))
    last = lines[-1]
    assert set(last) == {
        "step", "epoch", "images", "seconds", "losses", "rates", "grad_norm", "accuracy",
        "images_per_second",
    }  # fmt: skip
    assert (last["images"], last["epoch"]) == (20 * 8, 2.5)
    assert set(last["losses"]) == {
        "bce-adversarial.generator", "bce-adversarial.discriminator", "l1", "bce", "kl",
    }  # fmt: skip
    assert last["rates"] == {"generator": 3e-4, "discriminator": 5e-5}


def test_a_checkpoint_holds_data_and_sums_but_no_code(tiny_run):
    _, _, run = tiny_run
    folder = run / "checkpoints" / "step-00000020"
    manifest = json.loads((folder / "manifest.json").read_text())
    names = {"model.safetensors", "optimizer.safetensors", "latents.safetensors", "state.json"}
    assert set(manifest) == names
    assert {path.name for path in folder.iterdir()} == names | {"manifest.json"}
    for name, entry in manifest.items():
        data = (folder / name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (entry["bytes"], entry["sha256"])


def test_a_pipe_sees_plain_lines_that_say_how_to_go_on(tiny_run):
    _, done, run = tiny_run
    assert "\x1b" not in done.stdout + done.stderr
    assert f"Picture {run / 'samples' / 'weighted-mix-00000020-seed-0.png'}" in done.stdout
    assert "vgx sample 1\n" in done.stdout
    assert "64 images" in done.stdout
    assert "Training 20/20 steps, " in done.stdout
    phases = [
        "Opening the data set drawn-faces count=64\n",
        "Building the networks\n",
        "Auditing the losses\n",
    ]
    places = [done.stdout.index(phase) for phase in phases]
    assert places == sorted(places)
    assert places[-1] < done.stdout.index("Training")


def test_the_end_of_a_training_is_told_with_its_first_and_last_losses(tiny_run):
    _, done, run = tiny_run
    first, *_, last = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert "\nTrained 20 steps in " in done.stdout
    assert f"l1 {first['losses']['l1']:.3g} -> {last['losses']['l1']:.3g}," in done.stdout
    assert f"D {first['losses']['bce-adversarial.discriminator']:.3g} -> " in done.stdout


def test_a_run_elsewhere_is_named_by_its_path(vgx_program):
    out = vgx_program.folder / "elsewhere"
    done = vgx_program("run", TINY, "--set", "train.steps=1", "--out", out)
    assert f"vgx sample {out / '0001-tiny'}\n" in done.stdout


def test_the_runs_recipe_is_whole_and_repeats_it_to_the_bit(tiny_run):
    program, _, run = tiny_run
    program("run", run / "recipe.yaml", "--out", program.folder / "again")
    again = program.folder / "again" / "0001-tiny"
    assert checkpoint_files(again) == checkpoint_files(run)
    assert (again / "recipe.yaml").read_text() == (run / "recipe.yaml").read_text()


@pytest.mark.slow
def test_another_seed_is_another_run(tiny_run):
    program, _, run = tiny_run
    program("run", TINY, "--set", "train.seed=1", "--out", program.folder / "seeds")
    other = program.folder / "seeds" / "0001-tiny"
    one, two = checkpoint_files(run), checkpoint_files(other)
    assert one["model.safetensors"] != two["model.safetensors"]


@pytest.mark.bar("Q1")
def test_sample_draws_a_grid_of_a_hundred_and_repeats_it(tiny_run):
    program, _, run = tiny_run
    first = run / "samples" / "weighted-mix-00000020-seed-0.png"
    before = first.read_bytes()
    first.unlink()
    assert f"Picture {first}" in program("sample").stdout
    assert first.read_bytes() == before
    # Ten pictures of 16 pixels with two pixels of frame around each.
    assert size(first) == (10 * 18 + 2, 10 * 18 + 2)


def test_another_seed_draws_other_pictures(tiny_run, vgx_here, tmp_path):
    _, _, run = tiny_run
    for seed in (0, 0, 1):
        code, *_ = vgx_here("sample", run, "--seed", seed, "-n", 4, "--out", f"{seed}.png")
        assert code == 0
    assert (tmp_path / "0.png").read_bytes() != (tmp_path / "1.png").read_bytes()


@pytest.mark.parametrize("sampler", ["prior", "posterior"])
def test_any_sampler_draws_from_a_run(tiny_run, vgx_here, sampler):
    _, _, run = tiny_run
    code, out, err = vgx_here("sample", run, "--sampler", sampler, "-n", 4)
    assert code == 0, err
    assert f"{sampler}-00000020-seed-0.png" in out


@pytest.mark.bar("Q1")
def test_separate_pictures_are_the_grids_own(tiny_run, vgx_here, tmp_path):
    _, _, run = tiny_run
    assert vgx_here("sample", run, "-n", 3, "--separate", "single")[0] == 0
    names = sorted(path.name for path in (tmp_path / "single").iterdir())
    assert names == ["000000.png", "000001.png", "000002.png"]
    assert size(tmp_path / "single" / names[0]) == (16, 16)


def test_a_single_picture_is_the_same_however_many_are_asked_for(tiny_run, vgx_here, tmp_path):
    _, _, run = tiny_run
    for n in (3, 70):
        code, out, _ = vgx_here("sample", run, "-n", n, "--separate", str(n))
        assert code == 0
        assert f"Drawing {n}/{n} images" in out
    assert len(list((tmp_path / "70").iterdir())) == 70
    for name in ("000000.png", "000002.png"):
        assert (tmp_path / "3" / name).read_bytes() == (tmp_path / "70" / name).read_bytes()


def test_a_stream_is_what_sample_gives_at_once(tiny_run):
    from vgx.sampling.draw import draw, open_sampler

    _, _, run = tiny_run
    chunks = list(draw(*open_sampler(run, "prior"), 150, 3))
    assert [len(chunk) for chunk in chunks] == [64, 64, 22]
    assert torch.equal(torch.cat(chunks), vgx.sample(run, "prior", 150, 3))


def test_single_pictures_that_cannot_be_written_end_it(tiny_run, vgx_here, tmp_path):
    _, _, run = tiny_run
    (tmp_path / "single" / "000001.png").mkdir(parents=True)
    code, _, err = vgx_here("sample", run, "-n", 500, "--separate", "single")
    assert code == 5
    assert err.startswith("vgx: single: other files are there, 1 in all, such as 000001.png; ")
    (tmp_path / "file").touch()
    code, _, err = vgx_here("sample", run, "-n", 1, "--separate", "file")
    assert (code, err) == (5, "vgx: file: Not a directory\n")


def test_a_field_of_the_sampler_can_be_set(tiny_run, vgx_here, tmp_path):
    _, _, run = tiny_run
    for of in (2, 5):
        out = f"{of}.png"
        assert vgx_here("sample", run, "-n", 4, "--set", f"of={of}", "--out", out)[0] == 0
    assert (tmp_path / "2.png").read_bytes() != (tmp_path / "5.png").read_bytes()


def test_an_unknown_sampler_names_the_nearest(tiny_run, vgx_here):
    _, _, run = tiny_run
    code, _, err = vgx_here("sample", run, "--sampler", "weighted-mx")
    assert code == 2
    assert "did you mean 'weighted-mix'?" in err


def test_without_a_run_sample_says_how_to_make_one(vgx_here):
    code, _, err = vgx_here("sample")
    assert code == 5
    assert "vgx run RECIPE" in err


def test_a_notebook_gets_what_the_command_draws(tiny_run):
    _, _, run = tiny_run
    images = vgx.sample(str(run), sampler="weighted-mix", n=100, seed=0)
    assert images.shape == (100, 3, 16, 16)
    assert images.min() >= 0
    assert images.max() <= 1
    corner = images[0, :, 0, 0].mul(255).add(0.5).clamp(0, 255).byte().tolist()
    with Image.open(run / "samples" / "weighted-mix-00000020-seed-0.png") as grid:
        assert list(grid.getpixel((2, 2))) == corner


@pytest.mark.slow
@pytest.mark.parametrize(
    ("left_out", "losses"),
    [
        ("discriminator", "[{type: l1, weight: 100}, {type: kl}]"),
        ("encoder", "[{type: bce-adversarial}]"),
    ],
)
def test_a_vae_and_a_gan_are_recipes_that_leave_a_network_out(vgx_program, left_out, losses):
    sets = [f"{left_out}=null", f"losses={losses}", "train.steps=3"]
    if left_out == "encoder":
        sets.append("sampler={type: prior}")
    flags = [word for text in sets for word in ("--set", text)]
    out = vgx_program("run", TINY, *flags).stdout
    assert "Training 3/3" in out
    assert left_out not in [line.split()[0] for line in out.splitlines() if line]


def contents(folder):
    """Every file but the lock, which says who holds it now: its bytes and when it was written."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "lock"]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.mark.usefixtures("no_pages")
def test_a_resume_repeats_the_last_steps_first_on_request(vgx_here, tmp_path):
    """A run of six steps that was killed after its checkpoint of step 4."""
    settings = {"train.steps": 6, "train.save_every": 2, "train.draw_every": 100}
    recipe = vgx.load_recipe(TINY, settings)
    run = session.run(recipe, tmp_path / "runs", "cpu", console=Console(quiet=True))
    shutil.rmtree(run.checkpoints / "step-00000006")
    log = run.log_file.read_text()
    lines = list(map(json.loads, log.splitlines()))
    lines[3]["losses"]["l1"] += 1e-3
    run.log_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    before = contents(run.path)
    code, out, err = vgx_here("resume", run.path, "--verify", "--device", "cpu")
    assert code == 5
    assert "does not repeat: step 4: l1 was " in err
    assert "goes on" not in out
    assert contents(run.path) == before

    run.log_file.write_text(log)
    code, out, err = vgx_here("resume", run.path, "--verify", "--device", "cpu")
    assert code == 0, err
    verified, after = f"Run {run.path}: steps 3 to 4 repeat bit for bit", "goes on from step 4"
    assert 0 <= out.find(verified) < out.find(after)
    assert (run.checkpoints / "step-00000006").is_dir()


@pytest.mark.parametrize("way", ["resume", "run --resume", "python"])
def test_a_run_that_is_done_says_so_and_nothing_changes(tiny_run, vgx_here, tmp_path, capfd, way):
    run = shutil.copytree(tiny_run[2], tmp_path / "runs" / "best one")
    before = contents(run)
    if way == "python":
        session.resume(run)
        code, out, err = 0, *capfd.readouterr()
    else:
        code, out, err = vgx_here(*way.split(), run)
    assert (code, err) == (0, "")
    longer = f"vgx run --resume '{run}' --set train.steps=40"
    said = f"Run {run} is done at step 20; nothing is left to do. To go on: {longer}"
    assert out.splitlines()[-1] == said
    assert "goes on" not in out
    assert contents(run) == before


@pytest.mark.parametrize("way", ["run --resume", "python"])
@pytest.mark.parametrize(("setting", "number"), [("train.steps", 10), ("train.epochs", 2)])
def test_fewer_steps_than_are_done_are_refused_and_nothing_changes(
    tiny_run, vgx_here, tmp_path, way, setting, number
):
    """Eight minibatches are an epoch, so two epochs are 16 of the 20 steps that are done."""
    run = shutil.copytree(tiny_run[2], tmp_path / "runs" / "0001-tiny")
    before = contents(run)
    message = f"20 steps are done, and {setting}={number} makes {8 * 2 if number == 2 else 10}"
    if way == "python":
        fewer = vgx.load_recipe(run / "recipe.yaml", {setting: number})
        with pytest.raises(vgx.RecipeError, match=message):
            session.resume(run, fewer)
    else:
        code, _, err = vgx_here(*way.split(), run, "--set", f"{setting}={number}")
        assert code == 2
        assert message in err
    assert contents(run) == before


def test_the_command_that_is_told_trains_longer(tiny_run, vgx_here, tmp_path):
    run = shutil.copytree(tiny_run[2], tmp_path / "runs" / "best one")
    _, out, _ = vgx_here("resume", run)
    words = shlex.split(out.partition("To go on: ")[2])
    assert words[0] == "vgx"
    code, out, err = vgx_here(*words[1:])
    assert code == 0, err
    assert "goes on from step 20" in out
    assert json.loads((run / "ended.json").read_text())["step"] == 40
    assert f"Draw more with: vgx sample '{run}'" in out


def test_a_run_that_was_stopped_in_its_last_step_gets_its_end(tiny_run, vgx_here, tmp_path):
    run = shutil.copytree(tiny_run[2], tmp_path / "runs" / "0001-tiny")
    ended = {"how": "stopped", "step": 20, "of": 20, "signal": 15, "message": ""}
    (run / "ended.json").write_text(json.dumps(ended))
    code, out, err = vgx_here("resume", run)
    assert code == 0, err
    assert f"Run {run} ends at step 20" in out
    assert json.loads((run / "ended.json").read_text())["how"] == "done"
