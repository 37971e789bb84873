"""`vgx sample` and `vgx eval` on several processes: the same files and figures as by one."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import vgx
from vgx import rng
from vgx.data.batches import Batches
from vgx.data.store import open_store
from vgx.distributed.pieces import gathered, own_pieces, require_same
from vgx.distributed.state import group
from vgx.engine.engine import Engine
from vgx.errors import StorageError
from vgx.evaluation import evaluate, features
from vgx.evaluation.features import FeatureCache, real_sets
from vgx.evaluation.metrics import measure_samples, measure_training
from vgx.parts.kinds import Metric
from vgx.testing.processes import in_processes

RECIPES = Path(__file__).parents[2] / "recipes"
CPU = torch.device("cpu")
LABELLED = f"""
extends: {RECIPES / "cvae.yaml"}
name: labelled
image: {{size: 16}}
latent: 8
dataset: {{count: 220}}
encoder: {{inner: {{widths: [4, 8]}}}}
decoder: {{inner: {{widths: [8, 4]}}}}
sampler: {{type: weighted-mix, of: 3}}
eval: {{holdout: 0.4}}
train: {{steps: 6, batch: 8, ema: 0.9, draw_every: 6, save_every: 3}}
"""
METRICS = "psnr, ssim, frechet-distance, {type: prdc, k: 3}"


# --- pieces --------------------------------------------------------------------------------------


def piece(number):
    """Tensors of five kinds; their sizes differ from piece to piece."""
    generator = torch.Generator().manual_seed(number)
    drawn = torch.randn(number % 3 + 1, 2, 3, 3, generator=generator)
    special = torch.tensor([-0.0, torch.inf, torch.nan, 1e-45])
    return {
        "images": drawn.to(memory_format=torch.channels_last),
        "wide": torch.cat([drawn.flatten().double(), special.double()]),
        "special": special,
        "half": drawn[:, 0].bfloat16(),
        "index": torch.full((number % 2, 2), -number),
        "flags": drawn.flatten() > 0,
    }


def bits(tensors):
    return {
        name: (tensor.dtype, [*tensor.shape], tensor.contiguous().view(torch.uint8).tolist())
        for name, tensor in tensors.items()
    }


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_all_processes_get_all_pieces_in_order_to_the_bit(processes, count):
    def work():
        made = range(count)[own_pieces()]
        return [*made], [bits(each) for each in gathered(map(piece, made))]

    expected = [bits(piece(number)) for number in range(count)]
    shares = []
    for made, given in in_processes(processes, work):
        assert given == expected
        shares += made
    assert sorted(shares) == [*range(count)]  # each is computed once


def test_the_next_piece_is_computed_when_it_is_needed():
    """So a million images are never in memory at once."""
    made = []

    def work():
        given = gathered(
            made.append(number) or piece(number) for number in range(100)[own_pieces()]
        )
        next(given)
        return len(made)

    assert max(in_processes(2, work)) == 2
    assert sorted(made) == [0, 1]


def test_processes_with_other_files_are_told():
    def differing():
        require_same(f"{group().rank // 2}", "checkpoints")

    in_processes(2, differing)  # ranks 0 and 1 have the same
    with pytest.raises(StorageError, match="the processes opened different checkpoints: each"):
        in_processes(3, differing)


# --- real processes ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(forkserver, tmp_path_factory):
    """The folder of a trained run whose decoder takes labels, and the run."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "labelled.yaml").write_text(LABELLED)
    forkserver.run(folder, "run", "labelled.yaml")
    (run,) = (folder / "runs").iterdir()
    return folder, run


def together(forkserver, folder, *arguments, size=2, code=0, **environment):
    """Run `vgx ARGUMENTS` in several processes, as torchrun starts them; what each printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = {"WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    given |= {"LOCAL_WORLD_SIZE": size, "VGX_TIMEOUT": 60} | environment
    own = [{"RANK": rank, "LOCAL_RANK": rank, **given} for rank in range(size)]
    children = [
        forkserver.start(folder, *arguments, **{name: str(value) for name, value in each.items()})
        for each in own
    ]
    codes = [child.wait() for child in children]
    said = [child.out.read_text() + child.err.read_text() for child in children]
    assert codes == [code] * size, said
    return said


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_grid_has_the_same_bytes_and_one_process_tells_of_it(forkserver, trained):
    folder, _ = trained
    forkserver.run(folder, "sample", "-n", "150", "--out", "one.png")
    first, second = together(forkserver, folder, "sample", "-n", "150", "--out", "two.png")
    assert (folder / "two.png").read_bytes() == (folder / "one.png").read_bytes()
    assert "Picture two.png" in first
    assert second == ""


def test_single_images_have_the_same_bytes_and_labels(forkserver, trained):
    """300 images are five pieces of at most 64: three processes have two, two and one."""
    folder, _ = trained
    forkserver.run(folder, "sample", "-n", "300", "--separate", "one")
    said = together(forkserver, folder, "sample", "-n", "300", "--separate", "two", size=3)
    one = content(folder / "one")
    assert len(one) == 301
    assert content(folder / "two") == one
    assert "300 images in two" in said[0]
    assert said[1:] == ["", ""]


def test_an_evaluation_has_the_same_figures_to_the_bit(forkserver, trained):
    """With the features of real images in the cache, and without them."""
    folder, run = trained
    command = ("eval", run, "-n", "70", "--seeds", "2", "--metrics", METRICS)

    def figures():
        said = json.loads((run / "evaluation.json").read_text())
        assert said.pop("made")
        assert said.pop("seconds") > 0
        return said

    forkserver.run(folder, *command)
    one = figures()
    assert len(one["generation"][0]["figures"]) == 5
    assert one["reconstruction"]["pictures"] > 64  # more than one piece
    for cache in (folder / "cache", folder / "new"):
        (run / "evaluation.json").unlink()
        first, second = together(forkserver, folder, *command, VGX_CACHE=cache)
        assert figures() == one
        assert "frechet-distance" in first
        assert second == ""
    assert content(folder / "new" / "features") == content(folder / "cache" / "features")


def test_a_folder_with_other_files_stays_as_it_is(forkserver, trained):
    folder, _ = trained
    (folder / "mine").mkdir()
    (folder / "mine" / "thesis.txt").write_text("all of it")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}"}
    children = [
        forkserver.start(folder, "sample", "--separate", "mine", **{**own, "RANK": f"{rank}"})
        for rank in range(2)
    ]
    assert children[0].wait() == 5
    children[1].kill()  # as torchrun does when one process fails
    children[1].wait()
    assert [*content(folder / "mine")] == ["thesis.txt"]


# --- while a training goes on --------------------------------------------------------------------


def training():
    settings = {
        "eval.every": 1, "eval.n": 150, "dataset.count": 200, "eval.holdout": 0.4,
        "eval.metrics": ["psnr", "frechet-distance"],
    }  # fmt: skip
    recipe = vgx.load_recipe(RECIPES / "tiny.yaml", settings)
    store = open_store(recipe.dataset.build(recipe.image), recipe.image)
    engine = Engine(recipe, 4, 25)
    batches = Batches(store.images, recipe.train.batch, recipe.train.seed, CPU)
    engine.step(0, [batches.shared(0, recipe.train.accumulate)])
    return engine, store


def test_a_training_measures_the_same_in_all_processes():
    engine, store = training()

    def measure():
        cache = FeatureCache(engine.recipe.image, CPU, on_disk=False)
        return measure_training(engine, store, 1, cache)

    one = measure()
    assert {*one} == {"psnr", "frechet-distance"}
    assert in_processes(3, measure) == [one] * 3


class Middle(Metric, type="middle"):
    """Compares sets of images without features, and depends on their order."""

    pairs = False

    def build(self, image):
        return Sums()


class Sums:
    def __init__(self):
        self.sides = torch.zeros(2)

    def update(self, real, fake):
        weights = torch.arange(real.numel()).view(real.shape) + 1.0
        own = torch.stack([(real * weights).sum(), (fake * weights).sum()])
        self.sides = self.sides * 0.5 + own

    def compute(self):
        return {"real": self.sides[0].item(), "fake": self.sides[1].item()}


def test_a_metric_without_features_sees_all_images_in_order():
    recipe = vgx.load_recipe(RECIPES / "tiny.yaml", {"dataset.count": 100})
    store = open_store(recipe.dataset.build(recipe.image), recipe.image)
    real = real_sets(store, 0.0, 90).reference
    samples = torch.rand(100, 3, 16, 16, generator=torch.Generator().manual_seed(0)).split(16)

    def measure():
        cache = FeatureCache(recipe.image, CPU)
        return measure_samples(iter(samples[own_pieces()]), real, [Middle()], cache)

    one = measure()
    assert in_processes(2, measure) == [one] * 2


def test_features_of_the_cache_of_one_machine_alone_are_computed_by_all(monkeypatch, tmp_path):
    """A process that found them would wait for the others, which compute them, for ever."""
    recipe = vgx.load_recipe(RECIPES / "tiny.yaml", {"eval.metrics": ["frechet-distance"]})
    store = open_store(recipe.dataset.build(recipe.image), recipe.image)
    real, part = real_sets(store, 0.0, 64).reference, recipe.eval.metrics[0].features

    def of_real():
        monkeypatch.setattr(features, "cache_dir", lambda: tmp_path / f"machine {group().rank}")
        return FeatureCache(recipe.image, CPU).real_features(part, real)

    first = of_real()
    assert (tmp_path / "machine 0" / "features").exists()
    assert all(torch.equal(each, first) for each in in_processes(2, of_real))


class Known:
    """A posterior that is no Gaussian: its KL is that of its last sample."""

    def __init__(self, mean):
        self.mean = mean

    def sample(self, generator):
        self.drawn = self.mean + torch.randn(self.mean.shape, generator=generator)
        return self.drawn

    def kl(self):
        return self.drawn.square()


def test_posteriors_are_sampled_as_by_one_process():
    """150 images are three pieces, whose samples are drawn with their numbers."""
    recipe = vgx.load_recipe(RECIPES / "tiny.yaml", {"dataset.count": 150})
    store = open_store(recipe.dataset.build(recipe.image), recipe.image)
    real = real_sets(store, None, 150).reconstructed
    model = SimpleNamespace(
        recipe=SimpleNamespace(encoder=SimpleNamespace(conditional=False)),
        encoder=None,
        codes=torch.zeros(1),
        posterior=lambda images, labels: Known(images.mean((2, 3))),
    )
    advanced = []

    def measure():
        settings = SimpleNamespace(seeds=1)
        return evaluate._latent(model, real, settings, None, store, advanced.append)

    one = measure()
    assert advanced == [64, 64, 22]
    means = real.batch(0, 150, CPU).mean((2, 3))
    drawn = [
        Known(some).sample(rng.generator(0, "evaluation posterior", number))
        for number, some in enumerate(means.split(64))
    ]
    expected = torch.cat(drawn).double().square().mean(0)
    assert one["kl_by_dimension"] == pytest.approx(expected.tolist())
    assert in_processes(2, measure) == [one] * 2


# --- commands of one process ---------------------------------------------------------------------


@pytest.mark.parametrize("command", ["check tiny", "fit", "encode", "fork", "report", "export"])
def test_other_commands_say_that_they_work_in_one_process(forkserver, tmp_path, command):
    words = command.split()
    child = forkserver.run(tmp_path, *words, WORLD_SIZE="2", code=2)
    assert f"WORLD_SIZE is 2: vgx {words[0]} works in one process" in child.err.read_text()
    assert not (tmp_path / "runs").exists()


def test_who_only_reads_may_do_so_beside_a_training(forkserver, tmp_path):
    """In a container that a cluster has made for one process of several, for example."""
    forkserver.run(tmp_path, "parts", WORLD_SIZE="2")
