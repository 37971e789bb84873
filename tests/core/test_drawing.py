"""Pictures of a training: when they are drawn, and the time-lapse of them."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageStat

import vgx
from vgx import rng
from vgx.console import Console
from vgx.data.batches import as_batch
from vgx.data.store import open_source, open_store
from vgx.engine.build import evaluating
from vgx.engine.engine import Engine
from vgx.images import animate, grid
from vgx.runs import directory as rundir
from vgx.runs import frames
from vgx.sampling.model import current_model
from vgx.training import progress
from vgx.training import session as training

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"


def made_grids(run, steps, size=40):
    """Grids of one grey each, brighter from step to step."""
    for number, step in enumerate(steps):
        level = 5 * number + 20
        image = Image.new("RGB", (size, size), (level, level, level))
        image.save(run.samples / f"step-{step:08}.png")


def frames_of(run):
    with Image.open(run.samples / "timelapse.webp") as film:
        pairs = []
        for index in range(film.n_frames):
            film.seek(index)
            film.load()
            pairs.append((film.convert("RGB"), film.info["duration"]))
    return pairs


def test_early_learning_is_drawn_and_then_every_so_many_steps():
    early = [step for step in range(1, 1500) if frames.due(step, 10**9)]
    assert early == [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
    assert [step for step in range(1, 23) if frames.due(step, 7)] == [1, 2, 5, 7, 10, 14, 20, 21]
    assert frames.due(2 * 10**9, 3)


def test_some_are_chosen_evenly_with_both_ends():
    assert frames.evenly(list(range(5)), 5) == [0, 1, 2, 3, 4]
    assert frames.evenly(list(range(9)), 5) == [0, 2, 4, 6, 8]
    assert frames.evenly([], 3) == []
    chosen = frames.evenly(list(range(1001)), 40)
    assert (len(chosen), chosen[0], chosen[-1]) == (40, 0, 1000)


def test_a_time_lapse_shows_the_grids_in_order_and_rests_on_the_last():
    run = rundir.create("x")
    made_grids(run, [1, 2, 5, 10, 100])  # 100 comes after 10, not after 1
    (run.samples / "step-000000.1.png").write_bytes(b"not a grid's name")
    (run.samples / "recon-00000001.png").write_bytes(b"nor this")
    frames.timelapse(run)
    film = frames_of(run)
    levels = [ImageStat.Stat(frame.crop((0, 0, 40, 40))).mean[0] for frame, _ in film]
    assert levels == pytest.approx([20, 25, 30, 35, 40], abs=2)
    assert [time for _, time in film] == [150, 150, 150, 150, 1500]
    # 40 pixels go into 384 nine times; the step stands in a line of 18 under them.
    assert film[0][0].size == (360, 378)
    # What is written under the picture is its step, so it is another text each time.
    under = [frame.crop((0, 360, 360, 378)).tobytes() for frame, _ in film]
    assert len(set(under)) == 5


@pytest.mark.slow
def test_a_time_lapse_is_small_however_long_the_training():
    run = rundir.create("x")
    made_grids(run, range(1, 61), size=800)
    frames.timelapse(run)
    film = frames_of(run)
    assert len(film) == 40
    assert film[0][0].size == (384, 402)


def test_grids_of_different_sizes_make_a_time_lapse():
    run = rundir.create("x")
    for step, size in ((1, (40, 40)), (2, (70, 30)), (5, (400, 90))):
        Image.new("RGB", size, (200, 200, 200)).save(run.samples / f"step-{step:08}.png")
    frames.timelapse(run)
    film = frames_of(run)
    # Each is scaled to at most 384 pixels, with its step in a line of 18 under it.
    assert [frame.size for frame, _ in film] == [(384, 378)] * 3
    assert film[0][0].getpixel((359, 359))[0] > 190  # 40 pixels, nine times
    assert film[0][0].getpixel((375, 200))[0] < 20


@pytest.mark.parametrize("grids", [0, 1])
def test_one_picture_is_no_time_lapse(grids):
    run = rundir.create("x")
    made_grids(run, range(1, 1 + grids))
    frames.timelapse(run)
    assert not (run.samples / "timelapse.webp").exists()


@pytest.mark.parametrize("channels", [1, 3])
def test_an_animation_shows_pictures_in_their_order(channels, tmp_path):
    images = torch.stack([torch.full((channels, 16, 16), level) for level in (0.2, 0.8, 0.4)])
    animate(images, tmp_path / "new" / "walk.webp")
    with Image.open(tmp_path / "new" / "walk.webp") as film:
        assert (film.n_frames, film.size) == (3, (384, 384))
        levels = []
        for index in range(3):
            film.seek(index)
            levels.append(ImageStat.Stat(film.convert("RGB")).mean[0])
    assert levels == pytest.approx([51, 204, 102], abs=2)


def test_captions_stand_beside_their_rows():
    images = torch.ones(6, 3, 16, 16)
    plain, captioned = grid(images, 2), grid(images, 2, ["one", "", "a longer caption"])
    assert plain.shape == (3, 3 * 18 + 2, 2 * 18 + 2)
    margin = captioned[:, :, : -plain.shape[2]]
    assert torch.equal(captioned[:, :, margin.shape[2] :], plain)
    ink = [margin[:, 2 + row * 18 : 18 + row * 18].sum().item() for row in range(3)]
    assert ink[2] > ink[0] > 0 == ink[1]
    assert (margin[:, :, -5:] == 0).all()  # nothing is cut


@pytest.mark.slow
def test_a_run_draws_its_first_steps_and_leaves_a_time_lapse():
    recipe = vgx.load_recipe(TINY, {"train.steps": 6, "train.draw_every": 4})
    run = training.run(recipe, console=Console(file=io.StringIO()))
    steps = [frames.step_of(path) for path in frames.drawn(run)]
    assert steps == [1, 2, 4, 5, 6]
    with Image.open(run.samples / "timelapse.webp") as film:
        assert film.n_frames == 5


# --- what the grids of training show -------------------------------------------------------------

FACES = {"type": "drawn-faces", "count": 48}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    recipe = vgx.load_recipe(TINY, {"dataset": FACES})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VGX_CACHE", str(tmp_path_factory.mktemp("cache")))
        return open_store(open_source(recipe.dataset, recipe.image)[0], recipe.image)


def grids(store, changes, step=7, trained=0):
    """The grids of an engine after some steps, cut into their images, and the engine."""
    engine = Engine(vgx.load_recipe(TINY, changes), 20)
    batch = as_batch(store, 8, engine.device)
    for number in range(trained):
        engine.step(number, [batch])
    run = rundir.create("x")
    made = progress.draw(engine, store, run, step)
    assert sorted(made) == sorted(
        name for name, file in frames.files(run.samples, step).items() if file.exists()
    )
    return made, engine


def cells(grid):
    rows = grid[:, 2:, 2:].unfold(1, 16, 18).unfold(2, 16, 18)  # [C, rows, columns, 16, 16]
    return rows.permute(1, 2, 0, 3, 4).flatten(0, 1)


def test_the_grid_is_the_recipe_s_own_sampler_on_real_images_encoded_now(store):
    """With weights near one anchor each image is nearly the reconstruction of a real image."""
    mix = {"type": "weighted-mix", "of": 1}
    made, engine = grids(store, {"sampler": mix, "train.ema": None}, trained=3)
    model = current_model(engine, 3)
    images = as_batch(store, 48, engine.device).images
    with evaluating(model.networks), torch.no_grad():
        stream = rng.generator(0, "fixed latents")
        codes = model.encoder(images).sample(stream)
        recon = model.decode(codes)
    shown = cells(made["samples"])
    assert len(shown) == 64
    distance = torch.cdist(shown.flatten(1), recon.flatten(1))  # [64, 48]
    assert distance.min(1).values.max() < 1e-2
    prior = cells(made["prior"])
    with evaluating(model.networks):
        again = model.decode(progress.fixed_latents(engine, 64))
    assert torch.allclose(prior, again, atol=1e-6)


def test_the_grid_mixes_no_image_that_is_held_out(store):
    held = np.uint64(0x9E3779B97F4A7C15)  # the lowest hash, as `held_out` mixes them
    numbered = replace(store, hashes=np.array([held, ~held] * 24), labels=np.arange(48))
    mix = {"sampler": {"type": "weighted-mix", "of": 1}, "eval.holdout": 0.5}
    engine = Engine(vgx.load_recipe(TINY, mix), 20)
    encoded = progress._encoded(current_model(engine, 1), engine, numbered)
    assert encoded.labels.tolist() == [*range(1, 48, 2)]
    assert len(encoded.codes) == 24


def test_the_draws_are_the_same_each_time_and_the_training_does_not_notice(store):
    engine = Engine(vgx.load_recipe(TINY, {"sampler": {"type": "gaussian-mixture"}}), 20)
    run, before = rundir.create("x"), engine.state({"step": 0})
    global_before = torch.get_rng_state()
    first = progress.draw(engine, store, run, 1)
    second = progress.draw(engine, store, run, 2)
    for name, grid_ in first.items():
        assert torch.equal(grid_, second[name]), name
    assert torch.equal(torch.get_rng_state(), global_before)
    after = engine.state({"step": 0})
    assert all(torch.equal(after.model[name], before.model[name]) for name in before.model)
    assert len(after.latents["codes"]) == 0


def test_a_sampler_that_needs_no_stored_latents_has_no_second_grid(store):
    made, _ = grids(store, {"sampler": "prior"})
    assert sorted(made) == ["recon", "samples"]
    gan = {"encoder": None, "losses": ["hinge"], "sampler": {"type": "weighted-mix", "of": 2}}
    made, _ = grids(store, gan)
    assert sorted(made) == ["prior", "samples"]  # it mixes latents from N(0, I)


def test_a_grid_has_the_rows_of_its_sampler(store):
    made, _ = grids(store, {"sampler": {"type": "interpolate", "steps": 12}})
    assert made["samples"].shape[1:] == (5 * 18 + 2, 12 * 18 + 2)  # 60 of 64
    made, _ = grids(store, {"sampler": {"type": "traversal", "steps": 70}})
    assert made["samples"].shape[1] == 18 + 2


def test_a_sampler_that_fails_costs_its_own_grid_only(store):
    with pytest.warns(vgx.Notice, match="weighted-mix draws nothing for the grids of training: "):
        made, _ = grids(store, {"sampler": {"type": "weighted-mix", "of": 49}})
    assert sorted(made) == ["prior", "recon"]
