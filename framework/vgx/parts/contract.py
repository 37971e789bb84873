"""What the tensors and scores of parts must be, for `vgx check` and for `vgx.testing`.

Letters: B images, C channels, h x w the patch grid.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vgx.step import Score

SLACK = 1e-3  # how far augmented images may leave [0, 1]


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


def out_of_range(images: Tensor) -> str:
    """Return what is wrong with augmented images that leave [0, 1], else an empty string."""
    low, high = images.min().item(), images.max().item()
    leaves = low < -SLACK or high > 1 + SLACK
    return f"images leave [0, 1]: they go from {low:.3g} to {high:.3g}" if leaves else ""


def check_score(score: Any, batch: int) -> None:
    """Raise `ContractError` unless a value is a `vgx.Score` of so many images.

    Logits are [B, 1] or [B, 1, h, w], features [B, ...], and all are finite.
    """
    if not isinstance(score, Score):
        raise ContractError(f"it gives a {type(score).__name__}, not a vgx.Score")
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
