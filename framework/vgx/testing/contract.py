"""The contract of each kind of part as one check, for the tests of whoever writes a part.

    from vgx.testing import check_part

    def test_the_contract():
        check_part(Huber(delta=0.5))

The built-in parts are held to it too.

Letters: B pictures, C channels, H x W pixels, Z the latent shape, K stored latents.
"""

from __future__ import annotations

import copy
import json
import math
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vgx import rng
from vgx.engine.build import Player, plays
from vgx.errors import Dropped
from vgx.parts.base import Component, validate
from vgx.parts.kinds import Fitted, Labelled
from vgx.parts.registry import Plugin, Registry
from vgx.parts.values import STRICT, ImageSpec, LatentSpec
from vgx.recipe import schema
from vgx.recipe import yaml as yamlfile
from vgx.runs import checkpoint
from vgx.step import Gaussian, Score, Step

B = 8  # pictures in a batch, and looked at in a data set
ROUNDING = 1e-4  # between a picture in one batch and in another
SLACK = 1e-3  # how far pictures may leave [0, 1]


def check_part(
    part: Component,
    *,
    image: ImageSpec | None = None,
    latent: LatentSpec | None = None,
    step: Step | None = None,
) -> None:
    """Hold a part to the contract of its kind.

    By default pictures are 16x16 RGB (with 3 labels for a conditional part), latents 8 numbers, and
    a loss is asked with `full_step`; a part that wants another size or posterior is given them.
    Raises `AssertionError` that names the part and lists all that is wrong.
    """
    __tracebackhide__ = True
    image = image or ImageSpec(16, classes=3 if _conditional(part) else 0)
    latent = latent or LatentSpec((8,))
    case = _Case(part, image, latent, step or full_step(image, latent))
    cause = None
    for check in (_documentation, _recipe, _CHECKS[part.kind]):
        try:
            check(case)
        except _Fault as wrong:
            case.faults.append(str(wrong))
        except Exception as error:  # noqa: BLE001 - whatever a part raises is a fault of its
            case.faults.append(f"it raises {type(error).__name__}: {error}")
            cause = error
    if case.faults:
        whose = f"{part.kind} {part.type!r} ({type(part).__name__})"
        lines = "\n".join(f"- {fault}" for fault in dict.fromkeys(case.faults))
        raise AssertionError(f"{whose} breaks its contract:\n{lines}") from cause


def full_step(image: ImageSpec | None = None, latent: LatentSpec | None = None) -> Step:
    """Return a step of 8 pictures with everything that there can be, for trying losses on."""
    image, latent = image or ImageSpec(16), latent or LatentSpec((8,))
    chance, size = rng.generator(0, "testing"), (image.channels, image.size, image.size)

    def leaf(*shape: int, n: int = B) -> Tensor:
        return torch.randn((n, *shape), generator=chance).requires_grad_()

    def judge(images: Tensor) -> Score:
        seen = (images * weight).tanh()  # [B, C, H, W]
        return Score(seen.mean((1, 2, 3)).view(-1, 1), (seen,))

    weight = leaf(image.channels, 1, 1, n=1)
    posterior = Gaussian(leaf(*latent.shape) + 1, leaf(*latent.shape))  # not the prior by chance
    logits, prior = leaf(*size), leaf(*size)
    return Step(
        number=5,
        progress=0.5,
        real=torch.rand((B, *size), generator=chance),
        posterior=posterior,
        z=posterior.sample(chance),
        recon=logits.sigmoid(),
        recon_logits=logits,
        prior=prior.sigmoid(),
        real_score=Score(leaf(1, 2, 2), (leaf(5, 4, 4), leaf(6, 2, 2))),
        fake_score=Score(leaf(1, 2, 2, n=2 * B), (leaf(5, 4, 4, n=2 * B), leaf(6, 2, 2, n=2 * B))),
        discriminator=judge,
        fakes=("recon", "prior"),
        labels=torch.arange(B) % image.classes if image.classes else None,
    )


@dataclass(frozen=True)
class _Case:
    part: Any
    image: ImageSpec
    latent: LatentSpec
    step: Step
    faults: list[str] = field(default_factory=list)

    def claim(self, good: object, fault: str) -> None:
        """Note a fault, and go on looking."""
        if not good:
            self.faults.append(fault)


class _Fault(Exception):  # noqa: N818
    """A fault that leaves nothing more to look at."""


def _demand(good: object, fault: str) -> None:
    if not good:
        raise _Fault(fault)


def _expect(what: str, given: Any, shape: tuple[int, ...]) -> None:
    _demand(isinstance(given, Tensor), f"{what}: a {type(given).__name__}, not a tensor")
    found = tuple(given.shape)
    _demand(found == tuple(shape), f"{what}: shape {found}, not {tuple(shape)}")
    _demand(given.isfinite().all(), f"{what}: not all finite numbers")


# --- what all parts are held to ----------------------------------------------------------------


def _documentation(case: _Case) -> None:
    cls, said = type(case.part), "docstring is its documentation, and says next to nothing"
    case.claim(cls.type, 'it has no name for recipes: class X(vgx.Kind, type="kebab-name")')
    case.claim(len((cls.__doc__ or "").split()) >= 4, f"its {said}")
    for name, info in cls.model_fields.items():
        case.claim(info.description, f"its field {name} has no docstring below it")
    strict = all(cls.model_config.get(key) == value for key, value in STRICT.items())
    case.claim(strict, "its model_config is not that of parts, which are strict and frozen")
    case.claim(isinstance(case.part.note(case.image), str), "note() gives no string")
    case.claim(type(case.part.untrained()) is cls, "untrained() gives another part")


def _recipe(case: _Case) -> None:
    """Write the part as YAML, read it, and describe it in a schema."""
    classes = tuple({type(part): None for part in _within(case.part)})
    registry = Registry((Plugin("tested", "0", "tested", classes),))
    text = yamlfile.write({"part": case.part.model_dump(mode="json")})
    written = yamlfile.read(text, "recipe.yaml")[0].plain()["part"]
    del written["type"]
    again = validate(type(case.part), written, registry)
    case.claim(again == case.part, f"written to a recipe and read again it is {again!r}")
    json.dumps(schema.recipe_schema(registry))
    schema.fields(type(case.part))


def _within(value: Any) -> Iterator[Component]:
    """Go through a part and the parts in its fields."""
    if isinstance(value, Component):
        yield value
        value = tuple(value.__dict__.values())
    for inner in value if isinstance(value, tuple) else ():
        yield from _within(inner)


# --- data --------------------------------------------------------------------------------------


def _dataset(case: _Case) -> None:
    source, again = case.part.build(case.image), case.part.build(case.image)
    _source(case, source)
    same = source.fingerprint == again.fingerprint
    case.claim(same, "its fingerprint is another each time, although the data are the same")


def _source(case: _Case, source: Any) -> None:
    length, looked_at = len(source), range(min(len(source), B))
    said = isinstance(source.fingerprint, str) and source.fingerprint
    case.claim(said, "the fingerprint of its pictures is no string that says something")
    _demand(length, "it has no pictures")
    pictures = [_picture(source, index) for index in looked_at]
    again = [_picture(source, index) for index in looked_at]
    case.claim(pictures == again, "the same index gives another picture the second time")
    with ThreadPoolExecutor(4) as threads:
        again = list(threads.map(partial(_picture, source), looked_at))
    case.claim(pictures == again, "asked from several threads it gives other pictures")
    try:
        source[length]
        case.faults.append(f"it has {length} pictures, and [{length}] raises no IndexError")
    except IndexError:
        pass
    if isinstance(source, Labelled) and case.image.classes:
        for index in looked_at:
            label = source.label(index)
            good = type(label) is int and 0 <= label < case.image.classes
            case.claim(good, f"label({index}) is {label!r}, no int below {case.image.classes}")


def _picture(source: Any, index: int) -> bytes:
    from PIL import Image

    try:
        picture = source[index]
    except Dropped as reason:
        return str(reason).encode()
    given = type(picture).__name__
    _demand(isinstance(picture, Image.Image), f"[{index}] is a {given}, not a PIL picture")
    pixels: bytes = picture.tobytes()
    return f"{picture.mode} {picture.size} ".encode() + pixels


def _augmentation(case: _Case) -> None:
    change, images = case.part.build(case.image), _images(case)
    images[0], images[1] = 0, 1
    changed = _unharmed("images", images, lambda: _keyed(change, images))
    _expect("what it gives", changed, images.shape)
    _expect("what it gives for a batch of 2", _keyed(change, images[:2]), images[:2].shape)
    low, high = changed.min().item(), changed.max().item()
    inside = low >= -SLACK and high <= 1 + SLACK
    case.claim(inside, f"pictures leave [0, 1]: they go from {low:.3g} to {high:.3g}")
    case.claim(changed.dtype == images.dtype, f"it makes {changed.dtype} of {images.dtype}")
    again = _keyed(change, images, ambient=1)
    case.claim(torch.equal(changed, again), "it draws from something else than the generator")
    same = images[2:3].repeat(B, 1, 1, 1)  # [B, C, H, W]
    one, other = _keyed(change, same), _keyed(change, same, seed=1)
    apart = torch.equal(one, other) or bool((one != one[:1]).any())
    case.claim(apart, "it changes all pictures of a batch alike: each is to draw for itself")
    changed = _keyed(change, images.requires_grad_())
    _demand(changed.requires_grad, "no gradient passes through it, as diff_augment needs")
    (gradient,) = torch.autograd.grad(changed.sum(), images)
    case.claim(gradient.isfinite().all(), "the gradient that passes through it is not finite")


# --- networks ----------------------------------------------------------------------------------

Shown = Callable[[Any, int], dict[str, Tensor]]  # what counts of a network's output, once checked


def _encoder(case: _Case) -> None:
    def shown(posterior: Any, n: int) -> dict[str, Tensor]:
        _expect("its posterior's mean", posterior.mean, (n, *case.latent.shape))
        sample = _keyed(posterior.sample)
        _expect("its posterior's sample", sample, (n, *case.latent.shape))
        same = torch.equal(sample, _keyed(posterior.sample, ambient=1))
        _demand(same, "its posterior's sample draws from something else than the generator")
        return {**_tensors(posterior), "sample": sample}

    _network(case, lambda part: part.build(case.image, case.latent), _images(case), shown)


def _decoder(case: _Case) -> None:
    def shown(logits: Any, n: int) -> dict[str, Tensor]:
        _expect("its logits", logits, (n, case.image.channels, case.image.size, case.image.size))
        return {"logits": logits}

    z = torch.randn((B, *case.latent.shape), generator=rng.generator(0, "testing z"))  # [B, *Z]
    outputs = _network(case, lambda part: part.build(case.latent, case.image), z, shown)
    squashed = 0 <= outputs["logits"].min() <= outputs["logits"].max() <= 1
    case.claim(not squashed, "it gives pictures in [0, 1]: the engine applies the sigmoid")


def _discriminator(case: _Case) -> None:
    def shown(score: Any, n: int) -> dict[str, Tensor]:
        _demand(isinstance(score, Score), f"it gives a {type(score).__name__}, not a vgx.Score")
        patches = score.logits.shape[2:]
        _demand(len(patches) in (0, 2), f"its logits have shape {tuple(score.logits.shape)}")
        _expect("its logits", score.logits, (n, 1, *patches))
        for index, feature in enumerate(score.features):
            _expect(f"its features[{index}]", feature, (n, *feature.shape[1:]))
        return {"logits": score.logits}

    _network(case, lambda part: part.build(case.image), _images(case), shown)


def _network(
    case: _Case, build: Callable[[Any], Any], inputs: Tensor, shown: Shown
) -> dict[str, Tensor]:
    """Hold a network to what all are held to, and return what it gives in evaluation mode."""
    labels = torch.arange(B) % max(case.image.classes, 1)  # [B]

    def ask(network: Any, given: Tensor) -> dict[str, Tensor]:
        told = (labels[: len(given)],) if _conditional(case.part) else ()
        return shown(network(given, *told), len(given))

    network, kind = _born(build, case.part), "build does not give a torch.nn.Module"
    _demand(isinstance(network, nn.Module), kind)
    again = _born(build, case.part).state_dict()
    case.claim(_equal(network.state_dict(), again), "its first weights draw not only from torch")
    _unharmed("its input", inputs, lambda: ask(network.train(), inputs))
    _gradients(case, network, inputs, ask)
    ask(network, inputs[:2])
    copy.deepcopy(network)  # averaged weights start as a copy
    other = _born(build, case.part.untrained(), 1)
    other.load_state_dict(_stored(network.state_dict()))
    with torch.no_grad(), rng.ambient(1, "testing"):
        outputs, again = ask(network.eval(), inputs), ask(network, inputs)
        case.claim(_equal(outputs, again), "in evaluation mode the same input gives another output")
        loaded = ask(other.eval(), inputs)
        case.claim(_equal(outputs, loaded), "saved and loaded it gives another output")
        few = ask(network, inputs[:2])
    for name in ("mean", "logits") if case.part.kind != "discriminator" else ():
        near = name not in few or torch.allclose(few[name], outputs[name][:2], atol=ROUNDING)
        case.claim(near, f"in evaluation mode its {name} depends on the batch's other pictures")
    return outputs


def _gradients(case: _Case, network: nn.Module, inputs: Tensor, ask: Any) -> None:
    inputs = inputs.clone().requires_grad_()
    named: dict[str, Tensor]
    named = {f"its {name}": p for name, p in network.named_parameters() if p.requires_grad}
    if case.part.kind != "encoder":
        named["what it is given"] = inputs
    outputs = [tensor for tensor in ask(network, inputs).values() if tensor.requires_grad]
    _demand(outputs, "its output leads to no weight: is it computed in no_grad?")
    with rng.ambient(0, "testing"):
        pulled = torch.stack([(tensor * torch.randn_like(tensor)).sum() for tensor in outputs])
    found = torch.autograd.grad(pulled.sum(), [*named.values()], allow_unused=True)
    for name, gradient in zip(named, found, strict=True):
        case.claim(gradient is not None, f"no gradient reaches {name}: freeze it or use it")
        finite = gradient is None or gradient.isfinite().all()
        case.claim(finite, f"the gradient that reaches {name} is not finite")


# --- losses ------------------------------------------------------------------------------------


def _loss(case: _Case) -> None:
    # Leaves throughout, so that what a value leads to can be told apart.
    step = replace(_mapped(case.step, _leaf), real=case.step.real.detach().clone())
    before = _tensors(_mapped(step, lambda tensor: tensor.detach().clone()))
    players: tuple[Player, ...] = ("generator", "discriminator")
    said = 0
    for player in players:
        if plays(_born(_build, case.part), player):
            asked, value = _asked(case, player, step)
            same = _equal(before, _tensors(step))
            case.claim(same, f"its {player}'s half changes the step in place")
            said += value is not None
            if value is not None:
                _half(case, player, step, asked, value)
    case.claim(said, "it says nothing: define generator(step), discriminator(step) or both")


def _half(case: _Case, player: Player, step: Step, asked: Any, value: Any) -> None:
    whose = f"its {player}'s half"
    good = isinstance(value, Tensor) and value.dim() == 0 and bool(value.isfinite())
    _demand(good, f"{whose} is no finite scalar, but {value!r}")
    again = _asked(case, player, step, ambient=1)[1]
    case.claim(torch.equal(value, again), f"{whose} draws from something else than step.chance")
    rested = all(tensor.grad is None for tensor in _tensors(step).values() if tensor.is_leaf)
    case.claim(rested, f"{whose} calls backward(), which the engine does")
    doubled = _mapped(step, lambda tensor: _twice(tensor, len(step.z)))
    once, twice = value.item(), _asked(case, player, doubled)[1].item()
    mean = abs(once) < ROUNDING or 2 / 3 < twice / once < 3 / 2
    numbers = f"{once:.4g}, and {twice:.4g} for the same pictures twice"
    case.claim(mean, f"{whose} is no mean over the batch: {numbers}")
    _demand(value.requires_grad, f"{whose} reaches nobody: is it computed in no_grad?")
    _reached(case, player, step, asked, value)
    if isinstance(asked, nn.Module):
        other = _born(_build, case.part.untrained(), 1)
        other.load_state_dict(_stored(asked.state_dict()))
        same = torch.equal(getattr(other, player)(step), getattr(asked, player)(step))
        case.claim(same, f"saved and loaded {whose} is another")


def _reached(case: _Case, player: Player, step: Step, asked: Any, value: Tensor) -> None:
    inputs = {name: tensor for name, tensor in _tensors(step).items() if tensor.requires_grad}
    own = asked.named_parameters() if isinstance(asked, nn.Module) else ()
    weights = {f"its weight {name}": p for name, p in own if p.requires_grad}
    every = {**inputs, **weights}
    gradients = torch.autograd.grad(
        value, list(every.values()), retain_graph=True, allow_unused=True
    )
    found = {n: g for n, g in zip(every, gradients, strict=True) if g is not None}
    for name, gradient in found.items():
        case.claim(gradient.isfinite().all(), f"the gradient in {name} is not finite")
    doors = [name for name in found if not name.startswith(("real_score", "fake_score", "its"))]
    if player == "discriminator":
        for name in doors:
            fixed = f"step.{name}.detach()"
            case.faults.append(f"its discriminator's half leads into the generator: use {fixed}")
        return
    good = doors or any(name.startswith("fake_score") for name in found)
    case.claim(good, "its generator's half reaches nothing of the generator's")
    for name in weights:
        case.claim(name in found, f"no gradient of its generator's half reaches {name}")


def _asked(case: _Case, player: Player, step: Step, ambient: int = 0) -> tuple[Any, Any]:
    """Return a new-built loss and one of its halves."""
    asked = _born(_build, case.part)
    with rng.ambient(ambient, "testing"):
        return asked, getattr(asked, player)(step)


def _build(loss: Any) -> Any:
    return loss.build()


def _mapped(step: Step, change: Callable[[Tensor], Tensor]) -> Step:
    """Return the step with every tensor in it changed."""
    changed: dict[str, Any] = {}
    for name, value in vars(step).items():
        if isinstance(value, Tensor):
            changed[name] = change(value)
        elif isinstance(value, Score):
            changed[name] = Score(change(value.logits), tuple(map(change, value.features)))
        elif name == "posterior" and value is not None:
            changed[name] = copy.copy(value)
            tensors = {k: change(v) for k, v in vars(value).items() if isinstance(v, Tensor)}
            vars(changed[name]).update(tensors)
    return replace(step, **changed)


def _twice(tensor: Tensor, n: int) -> Tensor:
    """Return n rows twice, and 2*n rows, of two kinds of fakes, each kind twice."""
    if tensor.dim() == 0 or len(tensor) not in (n, 2 * n):
        return tensor
    return torch.cat([piece for kind in torch.split(tensor, n) for piece in (kind, kind)])


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_(tensor.is_floating_point())


# --- sampling and looking ----------------------------------------------------------------------


def _sampler(case: _Case) -> None:
    shape, part = case.latent.shape, case.part
    codes = torch.randn((64, *shape), generator=rng.generator(0, "testing codes"))  # [K, *Z]
    drawer = part.build(case.latent)
    kept = getattr(drawer, "fit", None) is None or isinstance(drawer, Fitted)
    case.claim(kept, "it has fit, but not state_dict and load_state_dict: nobody would call it")
    if isinstance(drawer, Fitted):
        _unharmed("codes", codes, lambda: drawer.fit(codes))
        again, loaded = part.build(case.latent), part.build(case.latent)
        with rng.ambient(1, "testing"):
            again.fit(codes)
        same = _equal(drawer.state_dict(), again.state_dict())
        case.claim(same, "fitted twice to the same codes it learns something else")
        loaded.load_state_dict(_stored(drawer.state_dict()))
        same = torch.equal(_keyed(drawer.draw, 5, codes), _keyed(loaded.draw, 5, codes))
        case.claim(same, "saved and loaded it draws something else")
    z = _unharmed("codes", codes, lambda: _keyed(drawer.draw, 5, codes))
    _expect("its latents", z, (5, *shape))
    case.claim(z.dtype == codes.dtype, f"it makes {z.dtype} latents from {codes.dtype} codes")
    again = _keyed(drawer.draw, 5, codes, ambient=1)
    case.claim(torch.equal(z, again), "it draws from something else than the generator")
    for n in (2, 100):
        same = torch.equal(z[:2], _keyed(drawer.draw, n, codes)[:2])
        case.claim(same, f"its latent i depends on how many are drawn: 5 or {n}")
    source = part.pictures(case.image)
    if source is not None:
        _source(case, source)


def _features(case: _Case) -> None:
    images, network = _images(case), _born(_build_features(case), case.part)
    _demand(isinstance(network, nn.Module), "build does not give a torch.nn.Module")
    seen = _unharmed("pictures", images, lambda: _keyed(lambda _: network(images)))
    _demand(isinstance(seen, Tensor) and seen.dim() == 2, "its features are no tensor [N, F]")
    _expect("its features", seen, (B, seen.shape[1]))
    case.claim(not seen.requires_grad, "its features lead to weights, which nothing is to train")
    again = _keyed(lambda _: network(images), ambient=1)
    case.claim(torch.equal(seen, again), "the same pictures give other features the second time")
    other = _born(_build_features(case), case.part, 1)(images)
    case.claim(torch.equal(seen, other), "built twice it gives other features: fix its weights")
    near = torch.allclose(network(images[:2]), seen[:2], atol=ROUNDING)
    case.claim(near, "the features of a picture depend on the others in its batch")


def _build_features(case: _Case) -> Callable[[Any], Any]:
    return lambda part: part.build(case.image)


def _metric(case: _Case) -> None:
    real, fake = _images(case), _images(case, 1)

    def measured(batch: int, ambient: int = 0) -> Any:
        with rng.ambient(ambient, "testing"):
            gauge = case.part.build(case.image)
            for start in range(0, B, batch):
                gauge.update(real[start : start + batch], fake[start : start + batch])
            numbers = gauge.compute()
            _demand(isinstance(numbers, dict) and numbers, f"compute() gives {numbers!r}")
            for name, value in numbers.items():
                good = type(value) is float and math.isfinite(value)
                _demand(good, f"compute() gives {value!r} as {name}, no finite float")
            case.claim(numbers == gauge.compute(), "compute() gives something else the second time")
        return numbers

    numbers = _unharmed("pictures", fake, lambda: _unharmed("pictures", real, lambda: measured(4)))
    case.claim(numbers == measured(4, ambient=1), "the same pictures give other numbers")
    for name, value in measured(2).items():
        near = math.isclose(value, numbers[name], rel_tol=10 * ROUNDING, abs_tol=ROUNDING)
        case.claim(near, f"its {name} depends on how the pictures are cut into batches")


def _tracker(case: _Case) -> None:
    grid, values = _images(case)[0], {"l1": 0.5, "kl": 2.0}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "0001-testing" / "log.jsonl"
        log.parent.mkdir()
        log.write_text("{}\n")
        for step in (0, 1):  # a resumed run opens it again
            with closing(case.part.build(log.parent)) as journal:
                journal.log(step, values)
                _unharmed("its picture", grid, partial(journal.images, step, "samples", grid))
        others = [path for path in log.parent.iterdir() if path.name != "trackers"]
        alone = others == [log] and log.read_text() == "{}\n"
        case.claim(alone, "it writes into the run's directory outside of its folder trackers")
    case.claim(values == {"l1": 0.5, "kl": 2.0}, "it changes the values that it is handed")


_CHECKS: dict[str, Callable[[_Case], None]] = {
    "dataset": _dataset,
    "augmentation": _augmentation,
    "encoder": _encoder,
    "decoder": _decoder,
    "discriminator": _discriminator,
    "loss": _loss,
    "sampler": _sampler,
    "features": _features,
    "metric": _metric,
    "tracker": _tracker,
}


# --- small things ------------------------------------------------------------------------------


def _conditional(part: Any) -> bool:
    return bool(getattr(part, "conditional", False))  # decoders and discriminators may be


def _unharmed(what: str, tensor: Tensor, call: Callable[[], Any]) -> Any:
    """Return what a call gives. Raises `_Fault` when it changes a tensor in place."""
    before = tensor.clone()
    result = call()
    _demand(torch.equal(before, tensor), f"it changes {what} in place")
    return result


def _keyed(call: Callable[..., Any], *given: Any, seed: int = 0, ambient: int = 0) -> Any:
    """Call with a fresh generator while torch's own generators stand elsewhere."""
    with rng.ambient(ambient, "testing"):
        return call(*given, rng.generator(seed, "testing"))


def _born(build: Callable[[Any], Any], part: Any, seed: int = 0) -> Any:
    with rng.ambient(seed, "testing weights"):
        return build(part)


def _stored(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state as it comes back from a file."""
    return checkpoint.tensors(checkpoint.tensor_bytes(state), Path("state"))


def _equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def _tensors(thing: Any) -> dict[str, Tensor]:
    """Return the tensors of a step, a score or a posterior by name."""
    found: dict[str, Tensor] = {}
    for name in dir(thing):
        value: Any = None if name.startswith("_") else getattr(thing, name)
        if isinstance(value, Tensor):
            found[name] = value
        elif name == "features":
            found |= {f"features[{index}]": tensor for index, tensor in enumerate(value)}
        elif name in ("posterior", "real_score", "fake_score") and value is not None:
            found |= {f"{name}.{inner}": tensor for inner, tensor in _tensors(value).items()}
    return found


def _images(case: _Case, seed: int = 0) -> Tensor:
    size = (B, case.image.channels, case.image.size, case.image.size)
    return torch.rand(size, generator=rng.generator(seed, "testing images"))  # [B, C, H, W]
