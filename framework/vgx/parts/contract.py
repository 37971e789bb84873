"""What parts must give, for `vgx check` and `vgx run` as well as for `vgx.testing`.

Letters: B images, C channels, h x w the patch grid, Z the latent shape, F kinds of fakes.
"""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal

from torch import Tensor

from vgx.parts.base import Component
from vgx.parts.documented import field_docstrings
from vgx.parts.kinds import Mapped, Quantising, Sampler
from vgx.step import KnowsKl, Score, Step

SLACK = 1e-3  # how far augmented images may leave [0, 1]
EXACT = 1e-5  # relative difference of two values that are meant to be equal
CLOSE = 1e-3  # that of outputs of a network, which a GPU may compute by another algorithm
NO_TERM = "it has no term: define generator(step), discriminator(step) or both, with a return"


class ContractError(ValueError):
    """A part does not keep the contract of its kind; the message says how."""


def check_tensor(what: str, value: Any, shape: tuple[int, ...]) -> None:
    """Raise `ContractError` unless a value is a tensor of this shape with finite numbers.

    `what` names the value at the beginning of the message.
    """
    if not isinstance(value, Tensor):
        raise ContractError(f"{what}: a {type(value).__name__}, not a tensor")
    if tuple(value.shape) != tuple(shape):
        raise ContractError(f"{what}: shape {tuple(value.shape)}, not {tuple(shape)}")
    if not value.isfinite().all():
        raise ContractError(f"{what}: not all finite numbers")


def are_texts(value: Any) -> bool:
    """Return whether a value is a sequence of texts."""
    whole = isinstance(value, Sequence) and not isinstance(value, str)
    return whole and all(isinstance(text, str) for text in value)


def check_posterior(posterior: Any, shape: tuple[int, ...]) -> None:
    """Raise `ContractError` unless a value is a posterior over latents of shape [B, *Z]."""
    mean = getattr(posterior, "mean", None)
    plain = getattr(posterior, "__dict__", None) is not None  # its tensors are found there
    if not (plain and isinstance(mean, Tensor) and callable(getattr(posterior, "sample", None))):
        name = type(posterior).__name__
        other = "an object with .mean and .sample(generator), no tuple, and without __slots__"
        raise ContractError(f"it gives a {name}; return vgx.Gaussian(mu, logvar), or {other}")
    check_tensor("its posterior's mean", mean, shape)
    if isinstance(posterior, KnowsKl):
        check_tensor("its posterior's kl", posterior.kl(), shape)


def fault_of_figures(figures: Any) -> str:
    """Return what is wrong with what `figures()` of a part gives; "" if nothing is."""
    if not isinstance(figures, dict):
        return f"figures() gives a {type(figures).__name__}, not a dictionary"
    for name, value in figures.items():
        if not isinstance(name, str) or not isinstance(value, int | float):
            return f"figures() gives {name!r}: {value!r}, not a text and a number; use .item()"
    return ""


def check_indices(network: Quantising, posterior: Any, latent: tuple[int, ...]) -> None:
    """Raise `ContractError` unless the indices of a quantising encoder give its posterior's mean.

    The encoder is in evaluation mode, and `latent` is Z.
    """
    indices = getattr(posterior, "indices", None)
    if not isinstance(indices, Tensor) or indices.is_floating_point():
        raise ContractError("its module has from_indices, and its posterior no integers `indices`")
    shape, places = tuple(indices.shape), (len(posterior.mean), *latent[1:])
    if shape != places and (shape[:-1] != places or 0 in shape):
        given = f"its posterior's indices are {shape}"
        raise ContractError(f"{given}, not {places} or that with the levels behind")
    if not 0 <= indices.min() <= indices.max() < network.codes:
        raise ContractError(f"its posterior's indices leave 0 to {network.codes - 1}, its codes")
    vectors = network.from_indices(indices)
    check_tensor("what its from_indices gives", vectors, tuple(posterior.mean.shape))
    if not vectors.allclose(posterior.mean.to(vectors), rtol=EXACT, atol=EXACT):
        raise ContractError("from_indices of its posterior's indices is not the posterior's mean")


def check_captions(part: Any, codes: Tensor, kl: Tensor | None) -> None:
    """Raise `ContractError` unless there is a caption for each row of a grid, or none at all.

    `part` is a sampler, or what its `for_kl` returned.
    """
    if not isinstance(part, Sampler):
        raise ContractError("its for_kl returns something else than a sampler")
    captions, rows = part.captions(5, codes, kl), math.ceil(5 / (part.row_length or 5))
    if not are_texts(captions) or len(captions) not in (0, rows):
        raise ContractError(f"its captions are {captions!r}; give a text for each row: {rows}")


def check_decoded(images: Any, shape: tuple[int, ...]) -> None:
    """Raise `ContractError` unless a sampler decoded images [n, C, H, W] in [0, 1]."""
    check_tensor("what its decode gives", images, shape)
    if fault := out_of_range(images):
        raise ContractError(f"what its decode gives: {fault}")


def check_mapped(decoder: Mapped, inputs: Sequence[Tensor], logits: Tensor) -> None:
    """Raise `ContractError` unless `map` and `decode_mapped` together give a decoder's logits.

    The decoder is in evaluation mode; `inputs` are latents [B, *Z], and labels if it takes any.
    """
    w = decoder.map(*inputs)
    shape = (len(logits), *getattr(w, "shape", ())[1:])
    check_tensor("what its map gives", w, shape)
    mean = tuple(getattr(decoder, "w_mean", w[0]).shape)
    if mean != shape[len(shape) - len(mean) :] or len(mean) == len(shape):
        raise ContractError(f"its w_mean is {mean}, which does not extend to w, {shape}")
    again = decoder.decode_mapped(w)
    check_tensor("what its decode_mapped gives", again, tuple(logits.shape))
    if not again.allclose(logits.to(again), rtol=CLOSE, atol=CLOSE):
        raise ContractError("decode_mapped(map(z)) is not what the module gives for z")


def out_of_range(images: Tensor) -> str:
    """Return what is wrong with images that leave [0, 1], else an empty string."""
    low, high = images.min().item(), images.max().item()
    leaves = low < -SLACK or high > 1 + SLACK
    return f"images leave [0, 1]: they go from {low:.3g} to {high:.3g}" if leaves else ""


def check_score(score: Any, batch: int) -> None:
    """Raise `ContractError` unless a value is a `vgx.Score` of so many images.

    Logits are [B, 1] or [B, 1, h, w], features [B, ...], and all are finite.
    """
    if not isinstance(score, Score):
        name = type(score).__name__
        raise ContractError(f"it gives a {name}, not a vgx.Score: return vgx.Score(logits)")
    if not isinstance(score.logits, Tensor):
        raise ContractError(f"its logits: a {type(score.logits).__name__}, not a tensor")
    shape = tuple(score.logits.shape)
    if shape[:2] != (batch, 1) or len(shape) not in (2, 4):
        message = f"its logits are {shape}, not [B, 1] or [B, 1, h, w] with B = {batch}"
        raise ContractError(message)
    check_tensor("its logits", score.logits, shape)
    for index, feature in enumerate(score.features):
        expected = (batch, *getattr(feature, "shape", ())[1:])
        check_tensor(f"its features[{index}]", feature, expected)


def check_loss_of_prior(loss: Any) -> None:
    """Raise `ContractError` unless a prior's loss is a finite scalar that leads to weights."""
    check_tensor("its loss", loss, ())
    if not loss.requires_grad:
        raise ContractError("its loss leads to no weight: is it computed in no_grad?")


def check_drawn(codes: Any, like: Tensor, values: int) -> None:
    """Raise `ContractError` unless a prior drew codes of the shape and type of others.

    Indices are below `values`, which is 0 for latents.
    """
    check_tensor("what it draws", codes, tuple(like.shape))
    if codes.dtype != like.dtype:
        raise ContractError(f"it draws {codes.dtype}, not {like.dtype}")
    if values and not 0 <= int(codes.min()) <= int(codes.max()) < values:
        raise ContractError(f"it draws indices that are not in 0 to {values - 1}")


def check_features(features: Any, images: int) -> None:
    """Raise `ContractError` unless features of so many images are [N, F] and finite."""
    if not isinstance(features, Tensor) or features.dim() != 2:
        tensor = isinstance(features, Tensor)
        given = f"shape {tuple(features.shape)}" if tensor else f"a {type(features).__name__}"
        raise ContractError(f"its features are no tensor [N, F], but {given}")
    check_tensor("its features", features, (images, features.shape[1]))


def check_values(values: Any, names: Collection[str]) -> None:
    """Raise `ContractError` unless a metric gives a finite float for each name that it declares."""
    if not isinstance(values, dict) or not values:
        raise ContractError(f"compute() gives {values!r}, no values by name")
    if {*values} != {*names}:
        raise ContractError(f"compute() gives other values than gives says: {[*values]}")
    for name, value in values.items():
        if type(value) is not float or not math.isfinite(value):
            raise ContractError(f"compute() gives {value!r} as {name}, no finite float")


def check_per_image(single: Any, values: Mapping[str, float], count: int) -> None:
    """Raise `ContractError` unless values of a metric are means of those of single images."""
    if not isinstance(single, Mapping):
        raise ContractError(f"per_image() gives {single!r}, no values by name")
    for name, each in single.items():
        plain = isinstance(each, Sequence) and all(isinstance(v, int | float) for v in each)
        mean = math.fsum(each) / count if plain and len(each) == count else math.nan
        if not math.isclose(mean, values.get(name, math.nan), rel_tol=1e-4, abs_tol=1e-8):
            raise ContractError(f"per_image() does not give {count} floats with the mean {name}")


def fault_of_term(value: Any, step: Step) -> str:
    """Return what a term of a loss is instead of a scalar tensor on the step's device, or ""."""
    if isinstance(value, int | float):
        return f"a {type(value).__name__}, not a scalar: leave .item() out, it stops the gradient"
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}, not a scalar: return one tensor"
    if not value.is_floating_point():
        return f"of {value.dtype}, not a floating-point number"
    if value.dim():
        return f"of shape {tuple(value.shape)}, not a scalar: end it with .mean()"
    if value.device.type != step.real.device.type:
        return f"on {value.device}, while the run is on {step.real.device}"
    return ""


def documentation_faults(part: Component) -> list[str]:
    """Return what `vgx parts` could not say about a part."""
    cls, faults = type(part), list[str]()
    if len((cls.__doc__ or "").split()) < 4 and sys.flags.optimize < 2:  # -OO removes docstrings
        faults.append("its docstring is its documentation, and has fewer than four words")
    documented = field_docstrings(cls)
    undocumented = [name for name in cls.model_fields if name not in documented]
    return faults + [f"its field {name} has no docstring below it" for name in undocumented]


# --- a term on all images of a batch, and on some of them ---------------------------------------


def reduction(whole: float, halves: tuple[float, float]) -> Literal["mean", "sum", "other"]:
    """Return how a term combines images, from its value on a batch and on both halves of it.

    A mean over the images is the mean of both values, and a sum over them is their sum. Any other
    term depends on which images share a batch; so does a mean over some of them, such as those of a
    class, which is 0 for a half without any.
    """
    tolerance = EXACT * max(abs(whole), *map(abs, halves))
    if abs(whole - sum(halves) / 2) <= tolerance:
        return "mean"
    return "sum" if all(halves) and abs(whole - sum(halves)) <= tolerance else "other"


def images_of(step: Step, part: slice) -> Step:
    """Return the step with only some images of its batch.

    Of the scores of fakes [F*B, ...] these are the same images of each kind.
    """
    images = len(step.real)

    def chosen(tensor: Tensor) -> Tensor:
        if tensor.dim() == 0 or len(tensor) not in (images, images * len(step.fakes)):
            return tensor
        return tensor.view(-1, images, *tensor.shape[1:])[:, part].flatten(0, 1)

    return with_tensors(step, chosen)


def tensors_in(step: Step) -> dict[str, Tensor]:
    """Return every tensor of a step by its name for people: "step.real_score.logits"."""
    tensors: dict[str, Tensor] = {}
    for name, value in vars(step).items():
        inner = {"": value}
        if isinstance(value, Score):
            inner = {".logits": value.logits}
            inner |= {f".features[{i}]": each for i, each in enumerate(value.features)}
        elif name == "posterior" and value is not None:
            inner = {f".{key}": each for key, each in vars(value).items()}
        for key, each in inner.items():
            if isinstance(each, Tensor):
                tensors[f"step.{name}{key}"] = each
    return tensors


def with_tensors(step: Step, change: Callable[[Tensor], Tensor]) -> Step:
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
    return step.but(**changed)
