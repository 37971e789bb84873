"""The contracts of data sets and augmentations."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vgx.check.changing import faults_of_change
from vgx.distributed.rows import gather, replicated
from vgx.errors import Dropped
from vgx.parts.contract import are_texts, check_tensor, out_of_range
from vgx.parts.kinds import Labelled, Named
from vgx.testing.case import LAST, B, Case, require, saved_and_loaded, unchanged, with_generator
from vgx.testing.shared import Cut, check_shared


def check_dataset(case: Case) -> None:
    """Check the images, labels and fingerprint of a data set."""
    source, again = case.part.build(case.image), case.part.build(case.image)
    check_source(case, source)
    same = source.fingerprint == again.fingerprint
    case.check(same, "its fingerprint is another each time, although the data are the same")


def check_source(case: Case, source: Any) -> None:
    """Check what a data set, or a sampler's `pictures`, is built to."""
    length, indices = len(source), range(min(len(source), B))
    named = isinstance(source.fingerprint, str) and bool(source.fingerprint)
    case.check(named, "the fingerprint of its images is empty or no string")
    require(length, "it has no images")
    images = [_bytes_of(source, index) for index in indices]
    again = [_bytes_of(source, index) for index in indices]
    case.check(images == again, "the same index gives another image the second time")
    with ThreadPoolExecutor(4) as threads:
        again = list(threads.map(partial(_bytes_of, source), indices))
    case.check(images == again, "read from several threads it gives other images")
    try:
        source[length]
        case.faults.append(f"it has {length} images, and [{length}] raises no IndexError")
    except IndexError:
        pass
    if isinstance(source, Labelled) and case.image.classes:
        for index in indices:
            label = source.label(index)
            good = type(label) is int and label < case.image.classes
            case.check(good, f"label({index}) is {label!r}, no int below {case.image.classes}")
            kept = good and label < 0 and not _is_dropped(source, index)
            case.check(not kept, f"label({index}) is {label!r}, and the image is not left out")
    if isinstance(source, Named) and case.image.classes:
        require(are_texts(source.classes), "its classes are no sequence of names")
        names, classes = len(source.classes), case.image.classes
        case.check(names == classes, f"it names {names} classes, and image.classes is {classes}")


def _is_dropped(source: Any, index: int) -> bool:
    try:
        source[index]
    except Dropped:
        return True
    return False


def _bytes_of(source: Any, index: int) -> bytes:
    """Return an image with its mode and size, or the reason why it is left out."""
    from PIL import Image

    try:
        image = source[index]
    except Dropped as reason:
        return str(reason).encode()
    if isinstance(image, np.ndarray):
        what = f"[{index}] is an array {image.shape} of {image.dtype}"
        require(image.ndim in (2, 3), f"{what}, not [H, W] or [H, W, C]")
        return f"{image.dtype} {image.shape} ".encode() + image.tobytes()
    name = type(image).__name__
    require(isinstance(image, Image.Image), f"[{index}] is a {name}, no PIL image and no array")
    pixels: bytes = image.tobytes()
    return f"{image.mode} {image.size} ".encode() + pixels


def check_augmentation(case: Case) -> None:
    """Check shape, range, randomness and gradients of an augmentation."""
    augment, images = case.part.build(case.image), case.images()
    images[0], images[1] = 0, 1
    changed = unchanged("images", images, lambda: with_generator(augment, images))
    check_tensor("what it gives", changed, images.shape)
    few = with_generator(augment, images[:2])
    check_tensor("what it gives for a batch of 2", few, images[:2].shape)
    fault = out_of_range(changed)
    case.check(not fault, fault)
    case.check(changed.dtype == images.dtype, f"it makes {changed.dtype} of {images.dtype}")
    again = with_generator(augment, images, ambient=1)
    case.check(torch.equal(changed, again), "it draws from something else than the generator")
    same = images[2:3].repeat(B, 1, 1, 1)  # [B, C, H, W]
    one, other = with_generator(augment, same), with_generator(augment, same, seed=1)
    apart = torch.equal(one, other) or bool((one != one[:1]).any())
    case.check(apart, "it changes all images of a batch alike: draw for each image")
    changed = with_generator(augment, images.requires_grad_())
    require(changed.requires_grad, "no gradient passes through it, as diff_augment needs")
    (gradient,) = torch.autograd.grad(changed.sum(), images)
    case.check(gradient.isfinite().all(), "the gradient that passes through it is not finite")
    case.faults.extend(faults_of_change(case.part, augment, LAST, case.step))
    if isinstance(augment, nn.Module):
        other = case.part.build(case.image)
        other.load_state_dict(saved_and_loaded(augment.state_dict()))
        ours, theirs = (with_generator(each, images) for each in (augment, other))
        case.check(torch.equal(ours, theirs), "saved and loaded it changes images in another way")

    def compute(cut: Cut) -> dict[str, Tensor]:
        with replicated():
            augment = case.part.build(case.image)
        return {"what it gives": gather(with_generator(augment, cut(images.detach())))}

    check_shared(case, B, compute)
