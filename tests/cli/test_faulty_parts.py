"""Faults that authors make in their first parts: each is named before the first step.

Most of them are not seen by running the part once: the value looks right, and the training starts.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

import vgx

# A VAE at 8 pixels. The losses of most cases stand beside these two.
RECIPE = """\
name: x
image: {size: 8}
latent: 4
dataset: {type: drawn-faces, count: 8}
encoder: {type: conv, widths: [4]}
decoder: {type: conv-transpose, widths: [4]}
losses: [l1, kl]
sampler: prior
train: {steps: 2, batch: 8}
"""
HEAD = "import numpy as np\nimport torch\nimport vgx\nfrom torch import nn\n\n\n"
REGISTER = "\n\n@vgx.hookimpl\ndef register_components(register):\n    register(P)\n"
LOSS = 'class P(vgx.Loss, type="p"):\n    """A loss with a fault in it."""\n\n'
BESIDE = "losses=[l1, kl, p]"


CAPTIONS = "\n    def captions(self, n, codes, kl):\n        return {}\n"


def loss(body, method="generator"):
    """A loss with one method."""
    return f"{LOSS}    def {method}(self, step):\n        {body}\n"


def network(kind, arguments, layers, base="nn.Sequential", forward=""):
    """A network part that is built of layers; `forward` replaces how they are called."""
    own = f"class N({base}):\n    def forward(self, x):\n        {forward}\n\n\n" if forward else ""
    return (
        f'{own}class P(vgx.{kind}, type="p"):\n    """A network with a fault in it."""\n\n'
        f"    def build(self, {arguments}):\n        return {'N' if forward else base}({layers})\n"
    )


def augmentation(body):
    return (
        'class P(vgx.Augmentation, type="p"):\n    """A change with a fault in it."""\n\n'
        f"    def build(self, image):\n        return lambda images, generator: {body}\n"
    )


def sampler(latents):
    return (
        'class P(vgx.Sampler, type="p"):\n    """A sampler with a fault in it."""\n\n'
        "    def build(self, latent):\n        return self\n\n"
        f"    def draw(self, n, codes, generator):\n        return {latents}\n"
    )


class Fault(NamedTuple):
    code: str  # of the part
    change: str  # of the recipe
    exit_code: int
    said: tuple[str, ...]  # the decisive words
    register: str = REGISTER


ERROR = "(step.recon - step.real)"
METHOD = f"    def generator(self, step):\n        return {ERROR}.mean()\n"
FLAT = "nn.Flatten(), nn.Linear(image.pixel_values, {})"
FAULTS = {
    "no return": Fault(
        loss(f"value = {ERROR}.abs().mean()"),
        BESIDE, 2, ("silent:p: generator(step) returns None", "is a return missing?"),
    ),
    "a method called forward": Fault(
        loss(f"return {ERROR}.abs().mean()", "forward"),
        BESIDE, 3, ("loss 'p' of mine.py", "define generator(step), discriminator(step) or both",
                    "nothing calls forward"),
    ),
    "numpy draws in an augmentation": Fault(
        augmentation("(images + torch.from_numpy(np.random.rand(*images.shape)).float() / 9) / 2"),
        "augment=[p]", 2, ("random:augment.0", "draw from the generator that it is given alone"),
    ),
    "torch draws in a loss": Fault(
        loss(f"return ({ERROR} + torch.randn_like(step.real)).abs().mean()"),
        BESIDE, 2, ("random:p", 'draw from step.rng("p") alone'),
    ),
    "a sum for a mean": Fault(
        loss(f"return {ERROR}.abs().sum()"),
        BESIDE, 2, ("sum:p: its value is a sum over the images of a batch", "end it with .mean()"),
    ),
    "a hook that registers nothing": Fault(
        loss(f"return {ERROR}.abs().mean()"), BESIDE, 3,
        ("mine.py: PluginError: it registers no part", "call register(X)"),
        "\n\n@vgx.hookimpl\ndef register_components(register):\n    pass\n",
    ),
    "a hook without its argument": Fault(
        loss(f"return {ERROR}.abs().mean()"), BESIDE, 3, ("mine.py: ", "it registers no part"),
        "\n\n@vgx.hookimpl\ndef register_components():\n    return [P]\n",
    ),
    "a discriminator's half without a discriminator": Fault(
        loss(f"return {ERROR}.abs().mean()")
        + f"\n    def discriminator(self, step):\n        return {ERROR}.detach().abs().mean()\n",
        BESIDE, 2, ("dead:p.discriminator: the recipe has no discriminator", "or remove the loss"),
    ),
    "a tuple for a posterior": Fault(
        network("Encoder", "image, latent", FLAT.format("latent.shape[0]"),
                forward="h = super().forward(x); return h, h"),
        "encoder=p", 3, ("encoder 'p' of mine.py", "a tuple; return vgx.Gaussian(mu, logvar)"),
    ),
    "no mean at all": Fault(
        loss(f"return {ERROR}.abs()"),
        BESIDE, 3, ("of shape (4, 3, 8, 8), not a scalar: end it with .mean()",),
    ),
    "a float": Fault(
        loss(f"return {ERROR}.abs().mean().item()"),
        BESIDE, 3, ("a float, not a scalar: leave .item() out",),
    ),
    "an __init__": Fault(
        LOSS + "    def __init__(self, scale=2.0):\n        super().__init__()\n"
        f"        self.scale = scale\n\n{METHOD}",
        BESIDE, 2, ("losses.2: a part has fields, no __init__", "write 'x: float = 1.0'"),
    ),
    "another device": Fault(
        loss('return (step.recon - torch.zeros(1, device="meta")).mean()'),
        BESIDE, 3, ("loss 'p' of mine.py", "(at mine.py:11)"),
    ),
    "a typo": Fault(
        loss("return (step.recn - step.real).abs().mean()"),
        BESIDE, 3, ("AttributeError: 'Step' object has no attribute 'recn'", "(at mine.py:11)"),
    ),
    "wrong shapes": Fault(
        network("Decoder", "latent, image",
                "nn.Linear(latent.shape[0], 3), nn.Unflatten(1, (3, 1, 1))"),
        "decoder=p", 3, ("decoder 'p' of mine.py", "shape (4, 3, 1, 1), not (4, 3, 8, 8)"),
    ),
    "a sigmoid at the end": Fault(
        network("Decoder", "latent, image", "nn.Linear(latent.shape[0], image.pixel_values), "
                "nn.Unflatten(1, (3, image.size, image.size)), nn.Sigmoid()"),
        "decoder=p", 2, ("squashed:decoder: it ends in a sigmoid", "should give logits"),
    ),
    "no_grad": Fault(
        loss(f"with torch.no_grad(): return {ERROR}.abs().mean()"),
        BESIDE, 2, ("dead:p: the generator learns nothing from it", "computed under no_grad"),
    ),
    "a bare tensor for a score": Fault(
        network("Discriminator", "image", FLAT.format("1")),
        "discriminator=p", 3, ("it gives a Tensor, not a vgx.Score: return vgx.Score(logits)",),
    ),
    "no hook": Fault(
        loss(f"return {ERROR}.abs().mean()"), BESIDE, 3,
        ("it has no function register_components", "marked @vgx.hookimpl"), "",
    ),
    "no docstring": Fault(
        f'class P(vgx.Loss, type="p"):\n{METHOD}',
        BESIDE, 3, ("the loss 'p' has no docstring, which is its documentation",),
    ),
    "a syntax error": Fault(loss("return ("), BESIDE, 3, ("mine.py: SyntaxError",)),
    "a wrong type in the recipe": Fault(
        LOSS + f'    k: float = 1.0\n    "How much."\n\n{METHOD}',
        "losses=[l1, kl, {type: p, k: much}]", 2, ("losses.2.k", "valid number"),
    ),
    "the name of another part": Fault(
        loss(f"return {ERROR}.abs().mean()").replace('type="p"', 'type="l1"'),
        "losses=[l1, kl]", 2, ("more than one plugin offers the loss 'l1'", "'mine.py:l1'"),
    ),
    "latents of a wrong shape": Fault(
        sampler("torch.zeros(n, 3)"),
        "sampler=p", 3, ("sampler 'p' of mine.py", "the latents: shape (5, 3), not (5, 4)"),
    ),
    "a field without a type": Fault(
        LOSS + f"    k = 1.0\n\n{METHOD}",
        BESIDE, 3, ("mine.py: PydanticUserError", "non-annotated attribute", "(at mine.py:7)"),
    ),
    "no type=": Fault(
        loss(f"return {ERROR}.abs().mean()").replace(', type="p"', ""),
        BESIDE, 3, ("is no part: a part is a class X(", 'type="..."'),
    ),
}  # fmt: skip
# And faults that are not in anybody's first part.
FAULTS |= {
    "python draws in a loss": Fault(
        "import random\n" + loss(f"return {ERROR}.abs().mean() * random.random()"),
        BESIDE, 2, ("random:p",),
    ),
    "a generator of its own in a loss": Fault(
        loss(f"return {ERROR}.abs().mean() * float(np.random.default_rng().random())"),
        BESIDE, 2, ("random:p",),
    ),
    "draws in a loss that cannot be given half of the images": Fault(
        loss("assert len(step.real) >= 4; return (step.recon + torch.randn(1)).mean()"),
        BESIDE, 2, ("random:p",),
    ),
    "a step that comes later": Fault(
        loss(f"return {ERROR}.abs().mean() if step.number < 1 else step.nothing"),
        BESIDE, 3, ("failed at step 2: AttributeError", "(at mine.py:11)"),
    ),
    "a gradient that is no number": Fault(
        loss("return (step.recon - step.recon.detach()).abs().sqrt().mean()"),
        BESIDE, 2, ("not-finite:p: its gradient in encoder and decoder is not finite",),
    ),
    "a sampler that draws from torch": Fault(
        sampler("torch.randn(n, *codes.shape[1:])"),
        "sampler=p", 2, ("random:sampler", "draw from the generator that draw() is given alone"),
    ),
    "a sampler whose latents depend on their number": Fault(
        sampler("codes[:n] / n"),
        "sampler=p", 2, ("contract:sampler: its latent i depends on how many are drawn",),
    ),
    "first weights from numpy": Fault(
        "def made(n, m):\n    layer = nn.Linear(n, m)\n"
        "    layer.weight.data = torch.from_numpy(np.random.rand(m, n)).float()\n"
        "    return layer\n\n\n"
        + network("Decoder", "latent, image", "made(latent.shape[0], image.pixel_values), "
                  "nn.Unflatten(1, (3, image.size, image.size))"),
        "decoder=p", 2, ("random:decoder: built twice it has other first weights",),
    ),
    "noise in evaluation": Fault(
        network("Decoder", "latent, image", "nn.Linear(latent.shape[0], image.pixel_values), "
                "nn.Unflatten(1, (3, image.size, image.size))",
                forward="h = super().forward(x); return h + torch.randn_like(h)"),
        "decoder=p", 2, ("random:decoder", "in evaluation mode"),
    ),
    "statistics of the batch in evaluation": Fault(
        network("Decoder", "latent, image", "nn.Linear(latent.shape[0], image.pixel_values), "
                "nn.Unflatten(1, (3, image.size, image.size)), "
                "nn.BatchNorm2d(3, track_running_stats=False)"),
        "decoder=p", 2, ("contract:decoder: in evaluation mode its logits for an image depends",),
    ),
    "a network that is another one when it is built for a checkpoint": Fault(
        network("Decoder", "latent, image", "nn.Linear(latent.shape[0], image.pixel_values), "
                "nn.Unflatten(1, (3, image.size, image.size)), Scale(self)")
        + "\n    trained: bool = True\n\n    def untrained(self):\n"
        "        return self.model_copy(update={'trained': False})\n\n\n"
        "class Scale(nn.Module):\n    def __init__(self, part):\n        super().__init__()\n"
        "        self.by = 2.0 if part.trained else 1.0\n\n"
        "    def forward(self, x):\n        return x * self.by\n",
        "decoder=p", 2, ("contract:decoder: built anew and loaded from a checkpoint",),
    ),
    "a data set that changes": Fault(
        "from PIL import Image\n\n\n"
        'class P(vgx.Dataset, type="p"):\n    """Images with a fault in them."""\n\n'
        "    def build(self, image):\n        return Images()\n\n\n"
        "class Images:\n    fingerprint = 'x'\n\n    def __len__(self):\n        return 8\n\n"
        "    def __getitem__(self, index):\n"
        "        return Image.fromarray(np.random.randint(0, 255, (8, 8, 3), np.uint8))\n",
        "dataset=p", 3, ("dataset 'p' of mine.py", "image 0 is another one the second time"),
    ),
    "an error while it is built": Fault(
        network("Encoder", "image, latent", "nn.Linear(image.nothing, 1)"),
        "encoder=p", 3, ("'ImageSpec' object has no attribute 'nothing' (at mine.py:11)",),
    ),
    "a misspelt half": Fault(
        loss("return step.recon.mean()") + "\n    def discriminater(self, step):\n        pass\n",
        BESIDE, 2, ("silent:p: nothing calls its discriminater; did you mean discriminator(step)",),
    ),
    "a little randomness": Fault(
        "import random\n\n\n" + loss("return step.recon.mean() * (1 + 1e-3 * random.random())"),
        BESIDE, 2, ("random:p",),
    ),
    "a sampler that is not built": Fault(
        sampler("codes").replace("return self", "return None"), "sampler=p", 3,
        ("its build() gives a NoneType without draw(n, codes, generator)",),
    ),
    "captions for other rows": Fault(
        sampler("codes[[0] * n]") + CAPTIONS.format("['one', 'two']"), "sampler=p", 3,
        ("sampler 'p' of mine.py", "its captions are ['one', 'two']; give a text for each row: 1"),
    ),
    "captions that need a KL": Fault(
        sampler("codes[[0] * n]") + CAPTIONS.format("[f'{kl.sum():.2f}']"), "sampler=p", 3,
        ("sampler 'p' of mine.py", "'NoneType' object has no attribute 'sum' (at mine.py:17)"),
    ),
    "a sampler that is lost when the KL is known": Fault(
        sampler("codes[[0] * n]") + "\n    def for_kl(self, kl):\n        kl.sum()\n",
        "sampler=p", 3, ("its for_kl returns something else than a sampler",),
    ),
    "own images that cannot be read": Fault(
        sampler("codes[[0] * n]") + "\n    def pictures(self, image):\n        return Own()\n\n\n"
        "class Own:\n    fingerprint = 'own'\n\n    def __len__(self):\n        return 8\n\n"
        "    def __getitem__(self, index):\n        raise OSError('the disk is gone')\n",
        "sampler=p", 4, ("sampler p: its own images: none of 8 images is usable", "disk is gone"),
    ),
    "an error while it is imported": Fault(
        "nothing()\n\n\n" + loss("return step.recon.mean()"), BESIDE, 3,
        ("NameError: name 'nothing' is not defined (at mine.py:7)",),
    ),
}  # fmt: skip


@pytest.fixture
def written(tmp_path):
    """Write the plugin of a fault and the recipe; return the arguments that name them."""

    def write(fault):
        (tmp_path / "mine.py").write_text(HEAD + fault.code + fault.register)
        (tmp_path / "r.yaml").write_text(RECIPE)
        return "r.yaml", "--plugin", "mine.py", "--set", fault.change

    return write


@pytest.mark.bar("X4")
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_before_the_first_step(name, written, vgx_here):
    fault = FAULTS[name]
    code, out, err = vgx_here("check", *written(fault))
    assert code == fault.exit_code, err
    for words in fault.said:
        assert words in err
    assert "ready to run" not in out
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "name", ["no return", "torch draws in a loss", "a typo", "a tuple for a posterior"]
)
def test_a_run_refuses_it_too_and_leaves_nothing(name, written, vgx_here, tmp_path):
    fault = FAULTS[name]
    code, _, err = vgx_here("run", *written(fault))
    assert code == fault.exit_code
    assert all(words in err for words in fault.said)
    assert not list((tmp_path / "runs").glob("*"))


SOUND = {
    "a mean": loss(f"return {ERROR}.abs().mean()"),
    "keyed noise": loss(
        f'n = torch.rand(8, generator=step.rng("n")); return ({ERROR} * n).abs().mean()'
    ),
    "a term that looks across the images": loss(f"return {ERROR}.mean((1, 2, 3)).var()"),
    "a half that may have nothing to say": loss(f"return {ERROR}.abs().mean()")
    + "\n    def discriminator(self, step):\n        return None\n",
    "a module with BatchNorm": (
        "class N(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.norm = nn.BatchNorm2d(3)\n\n    def generator(self, step):\n"
        "        return (self.norm(step.recon) - step.real).abs().mean()\n\n\n"
        f"{LOSS}    def build(self, image, latent):\n        return N()\n"
    ),
    "a value of zero": loss(f"return {ERROR}.mean() * 0"),
    "a schedule of its own": loss(f"return {ERROR}.abs().mean() if step.number > 0 else None"),
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_part_is_not_refused(name, written, vgx_here):
    code, out, err = vgx_here("check", *written(Fault(SOUND[name], BESIDE, 0, ())))
    assert (code, err) == (0, "")
    assert out.rstrip().endswith("ready to run")


def test_a_field_that_only_the_captions_read_is_read(written, vgx_here):
    code = sampler("codes[[0] * n]").replace("    def", '    title: str = ""\n\n    def', 1)
    code += CAPTIONS.format("[self.title]")
    fault = Fault(code, "sampler={type: p, title: new}", 0, ())
    assert vgx_here("check", *written(fault))[0] == 0


def test_a_sampler_needs_its_latents_at_the_first_evaluation(written, vgx_here):
    """Of minibatches of 8, 24 latents are there after step 3; at the end of 40 steps all are."""
    arguments = written(Fault(METRIC.format("pass", "{'p': 1.0}"), "train.steps=40", 0, ()))
    arguments = (*arguments, "--set", "dataset.count=64")
    measured = ("--set", "sampler={type: gaussian-mixture, components: 25}")
    early = ("--set", "eval.every=3", "--set", "eval.n=8", "--set", "eval.metrics=[{}]")
    of_samples, of_pairs = (tuple(v.format(m) for v in early) for m in ("kernel-distance", "p"))
    code, _, err = vgx_here("check", *arguments, *measured, *of_samples)
    assert code == 2
    assert "components: 25: the run has 24 latents (at the first evaluation, when " in err
    assert "when 24 latents are stored; a larger eval.every than 3 gives more)" in err
    assert vgx_here("check", *arguments, *measured, *of_samples, "--set", "eval.every=4")[0] == 0
    assert vgx_here("check", *arguments, *measured, *of_pairs)[0] == 0
    assert vgx_here("check", *arguments, *measured)[0] == 0


def test_what_is_meant_can_be_allowed(written, vgx_here):
    arguments = written(FAULTS["a sum for a mean"])
    code, out, _ = vgx_here("check", *arguments, "--set", 'allow=["sum:p"]')
    assert code == 0
    assert "Allowed by the recipe: sum:p: " in out


# --- parts of a notebook -----------------------------------------------------------------------


class Cell(vgx.Loss, type="cell"):
    """A loss that no plugin has, as in a cell of a notebook."""

    def generator(self, step):
        return step.recon.mean()


def test_a_part_of_a_notebook_is_refused_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(RECIPE)
    recipe = vgx.load_recipe("r.yaml")
    recipe = recipe.model_copy(update={"losses": (*recipe.losses, Cell())})
    with pytest.raises(vgx.PluginError) as refused:
        vgx.run(recipe)
    assert str(refused.value) == (
        "losses.2: Cell, the loss 'cell', is in no plugin file and in no installed plugin, so "
        "nothing could open this run again. Write the class to a file, such as mine.py, with "
        "register_components, import it from there (from mine import Cell), and pass the file: "
        'vgx.run(recipe, plugins=["mine.py"])'
    )
    registry = vgx.Registry((*vgx.discover().plugins, vgx.Plugin("x", "0", "x", (Cell,))))
    with pytest.raises(vgx.PluginError, match="nothing could open this run again"):
        vgx.run(recipe, registry=registry)
    assert [path.name for path in tmp_path.iterdir()] == ["r.yaml"]


@pytest.mark.slow
def test_what_the_message_says_to_do_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "r.yaml").write_text(RECIPE)
    file = tmp_path / "cell_of_a_notebook.py"
    file.write_text(HEAD + SOUND["a mean"] + REGISTER)
    recipe = vgx.load_recipe("r.yaml")
    from cell_of_a_notebook import P

    recipe = recipe.model_copy(update={"losses": (*recipe.losses, P())})
    run = vgx.run(recipe, plugins=[file.name])
    file.unlink()
    assert vgx.sample(run, n=2).shape == (2, 3, 8, 8)


@pytest.mark.slow
def test_a_run_keeps_the_files_of_its_registry(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(RECIPE)
    (tmp_path / "mine.py").write_text(HEAD + SOUND["a mean"] + REGISTER)
    registry = vgx.discover(["mine.py"])
    run = vgx.run(vgx.load_recipe("r.yaml", [BESIDE], registry), registry=registry)
    assert (Path(run.path) / "plugins" / "mine.py").is_file()
    assert vgx.sample(run, n=2).shape == (2, 3, 8, 8)


METRIC = (
    'class P(vgx.Metric, type="p"):\n    """A metric with a fault in it."""\n\n    pairs = True\n\n'
    "    def build(self, image):\n        return S()\n\n\nclass S:\n"
    "    def update(self, real, fake):\n        {}\n\n"
    "    def compute(self):\n        return {}\n"
)
FEATURES = (
    'class P(vgx.Features, type="p"):\n    """Features with a fault in them."""\n\n'
    "    def build(self, image):\n        return N()\n\n\nclass N(nn.Module):\n"
    "    def forward(self, x):\n        return {}\n"
)
ALL = "x.flatten(1)"
MEASURES = {
    "no values": (METRIC.format("pass", "None"), "compute() gives None, no values by name"),
    "a number": (METRIC.format("pass", "0.5"), "compute() gives 0.5, no values by name"),
    "another name": (
        METRIC.format("pass", "{'q': 1.0}"),
        "values than gives says: ['q']",
    ),
    "a tensor": (
        METRIC.format("pass", "{'p': torch.ones(())}"),
        "gives tensor(1.) as p, no finite float",
    ),
    "values of images with another mean": (
        METRIC.format("pass", "{'p': 1.0}")
        + "\n    def per_image(self):\n        return {'p': [1.0] * 7 + [2.0]}\n",
        "per_image() does not give 8 floats with the mean p",
    ),
    "no values of images": (
        METRIC.format("pass", "{'p': 1.0}") + "\n    def per_image(self):\n        pass\n",
        "per_image() gives None, no values by name",
    ),
    "one value for all images": (
        METRIC.format("pass", "{'p': 1.0}")
        + "\n    def per_image(self):\n        return {'p': 1.0}\n",
        "per_image() does not give 8 floats with the mean p",
    ),
    "nothing built": (
        METRIC.format("pass", "{'p': 1.0}").replace("return S()", "S()"),
        "its build() gives a NoneType without update()",
    ),
    "NaN": (
        METRIC.format("pass", "{'p': float('nan')}"),
        "gives nan as p, no finite float",
    ),
    "random": (
        METRIC.format("pass", "{'p': torch.rand(()).item()}"),
        "same images give other num",
    ),
    "changed": (
        METRIC.format("real.mul_(0)", "{'p': 1.0}"),
        "changes the images that it is",
    ),
    "an error": (METRIC.format("real.nothing", "{'p': 1.0}"), "'nothing' (at mine.py:18)"),
    "four dimensions": (FEATURES.format("x"), "are no tensor [N, F], but shape (8, 3, 8, 8)"),
    "no features": (FEATURES.format("None"), "are no tensor [N, F], but a NoneType"),
    "random features": (FEATURES.format("torch.randn(len(x), 3)"), "other features the second"),
    "of the batch": (FEATURES.format(f"{ALL} - {ALL}.mean(0)"), "depend on the others in its"),
    "an error in features": (FEATURES.format("x.nothing"), "'nothing' (at mine.py:16)"),
}


@pytest.mark.parametrize("name", MEASURES)
def test_metrics_and_features_are_held_to_their_contract(name, vgx_here, tmp_path):
    """Before the first step: a training would end, or be judged, at its first evaluation."""
    code, expected = MEASURES[name]
    (tmp_path / "mine.py").write_text(HEAD + code + REGISTER)
    (tmp_path / "r.yaml").write_text(RECIPE.replace("count: 8", "count: 16"))
    metric = "p" if "vgx.Metric" in code else "{type: frechet-distance, features: p}"
    evaluation = f"eval={{every: 2, n: 16, metrics: [{metric}]}}"
    status, out, err = vgx_here("check", "r.yaml", "--plugin", "mine.py", "--set", evaluation)
    assert status == 3, (out, err)
    assert expected in err
    assert "'p' of mine.py" in err
    assert "ready to run" not in out


LATE = '''\
import vgx


class Draws:
    def draw(self, n, codes, generator):
        if n == 7:
            raise ArithmeticError("seven")
        return codes[:1].repeat(n, 1)


class Late(vgx.Sampler, type="late"):
    """A sampler that cannot draw seven."""

    def build(self, latent):
        return Draws()


class State:
    def update(self, real, fake):
        pass

    def compute(self):
        return {"bad": {}["worse"]}


class Bad(vgx.Metric, type="bad"):
    """A metric that cannot be computed."""

    pairs = True

    def build(self, image):
        return State()


class Nothing(vgx.Metric, type="nothing"):
    """A metric that gives nothing."""

    pairs = True

    def build(self, image):
        return Silent()


class Silent(State):
    def compute(self):
        pass


@vgx.hookimpl
def register_components(register):
    register(Late)
    register(Bad)
    register(Nothing)
'''


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ("eval", "--metrics", "nothing", "-n", 4, "--seeds", 1),
            "on the first batch compute() gives None, no values by name",
        ),
        (("sample", "-n", 7), "ArithmeticError: seven (at mine.py:7)"),
        (("sample", "-n", 7, "--separate", "out"), "ArithmeticError: seven (at mine.py:7)"),
        (("eval", "--metrics", "bad", "-n", 4, "--seeds", 1), "KeyError: 'worse' (at mine.py:23)"),
    ],
)
def test_a_part_that_fails_after_the_training_is_named_with_its_line(
    arguments, expected, tmp_path, monkeypatch, capfd
):
    from vgx.cli import run_program

    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(LATE)
    Path("r.yaml").write_text(RECIPE.replace("sampler: prior", "sampler: late"))
    assert run_program(["run", "r.yaml", "--plugin", "mine.py"]) == 0
    assert run_program([str(argument) for argument in arguments]) == 3
    error = capfd.readouterr().err
    assert expected in error
    assert "bug" not in error
