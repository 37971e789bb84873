"""One part under test, and what the checks of all kinds share.

Letters: B images, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vgx import rng
from vgx.parts.contract import ContractError
from vgx.parts.values import ImageSpec, LatentSpec
from vgx.runs import checkpoint
from vgx.step import Gaussian, Step

B = 8  # images in a batch, and at most so many of a data set
LAST = 99  # the number of the last step, for parts that change with time
ROUNDING = 1e-4  # allowed difference between an image in one batch and in another


@dataclass(frozen=True)
class Case:
    """A part, what it is built for, and the faults that were found so far."""

    part: Any
    image: ImageSpec
    latent: LatentSpec
    step: Step
    decoder: Any = None  # the part beside an encoder that uses it
    model: Any = None  # for a sampler that uses it, in place of a small one
    faults: list[str] = field(default_factory=list)

    @property
    def conditional(self) -> bool:
        """Whether the part takes labels; only networks may."""
        return bool(getattr(self.part, "conditional", False))

    @property
    def labels(self) -> Tensor:
        """[B]  One label after the other; 0 where there are no classes."""
        return torch.arange(B) % max(self.image.classes, 1)

    def check(self, condition: object, fault: str) -> None:
        """Note a fault unless the condition holds, and go on."""
        if not condition:
            self.faults.append(fault)

    def images(self, seed: int = 0) -> Tensor:
        """[B, C, H, W]  Return random images in [0, 1]."""
        return torch.rand((B, *self.image.shape), generator=rng.generator(seed, "testing images"))


class Networks:
    """An encoder and a decoder of one layer, for losses that call them or read their weights."""

    def __init__(self, image: ImageSpec, latent: LatentSpec) -> None:
        """Draw their weights by a key."""
        self.image, self.latent = image.shape, latent.shape
        generator, pixels = rng.generator(0, "testing networks"), image.pixel_values
        encoder = torch.randn((pixels, latent.size), generator=generator) / pixels**0.5
        decoder = torch.randn((latent.size, pixels), generator=generator)
        judge = torch.randn((2, pixels), generator=generator)  # read by losses on weights alone
        self.weights = {
            "encoder": encoder, "map": torch.eye(latent.size), "decoder": decoder,
            "discriminator": judge,
        }  # fmt: skip
        for weight in self.weights.values():
            weight.requires_grad_()

    def calls(self) -> dict[str, Callable[..., Any]]:
        """Return what a step has of them."""
        return {
            "encode": self.encode, "decode": self.decode, "decode_logits": self.decode_logits,
            "map": self.map, "decode_mapped": self.decode_mapped, "parameters": self.parameters,
        }  # fmt: skip

    def parameters(self, network: str) -> dict[str, Tensor]:
        """Return the parameters of a network by name."""
        return {"weight": self.weights[network.partition(" ")[0]]}

    def encode(self, images: Tensor, labels: Tensor | None = None) -> Gaussian:
        """Return a posterior over [N, *Z] of images [N, C, H, W]."""
        del labels
        mu = (images.flatten(1) @ self.weights["encoder"]).view(-1, *self.latent)  # [N, *Z]
        return Gaussian(mu, mu.tanh() - 1)

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """[N, C, H, W]  Images in [0, 1] of latents [N, *Z]."""
        return self.decode_logits(z, labels).sigmoid()

    def decode_logits(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """[N, C, H, W]  These images before the sigmoid."""
        return self._logits(self.map(z, labels))

    def map(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """[N, Z]  What the decoder makes of latents [N, *Z] at first: the same numbers."""
        del labels
        w: Tensor = z.flatten(1) @ self.weights["map"]
        return w

    def decode_mapped(self, w: Tensor) -> Tensor:
        """[N, C, H, W]  Images in [0, 1] of w [N, Z]."""
        return self._logits(w).sigmoid()

    def _logits(self, w: Tensor) -> Tensor:
        logits: Tensor = w @ self.weights["decoder"]  # [N, P]
        return logits.view(-1, *self.image)


def require(condition: object, fault: str) -> None:
    """Raise `ContractError` unless the condition holds: without it nothing more can be checked."""
    if not condition:
        raise ContractError(fault)


def unchanged(what: str, tensor: Tensor, call: Callable[[], Any]) -> Any:
    """Return what a call returns. Raise `ContractError` if it changes the tensor in place."""
    before = tensor.clone()
    result = call()
    require(torch.equal(before, tensor), f"it changes {what} in place")
    return result


def with_generator(
    call: Callable[..., Any], *arguments: Any, seed: int = 0, ambient: int = 0
) -> Any:
    """Call with a fresh generator as the last argument.

    `ambient` seeds PyTorch's global generators meanwhile: the result must not depend on it.
    """
    with rng.ambient(ambient, "testing"):
        return call(*arguments, rng.generator(seed, "testing"))


def built(build: Callable[[Any], Any], part: Any, seed: int = 0) -> Any:
    """Build a part while PyTorch's global generators are seeded."""
    with rng.ambient(seed, "testing weights"):
        return build(part)


def saved_and_loaded(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state as it comes back from a file."""
    return checkpoint.tensors(checkpoint.tensor_bytes(state), Path("state"))


def tensors_of(value: Any) -> dict[str, Tensor]:
    """Return the tensors of a step, a score or a posterior by name."""
    tensors: dict[str, Tensor] = {}
    # A posterior may compute its tensors in properties; a step's properties only repeat tensors.
    names = vars(value) if isinstance(value, Step) else dir(value)
    for name in names:
        if name.startswith("_") or (isinstance(value, Step) and not value.has(name)):
            continue
        inner: Any = getattr(value, name)
        if isinstance(inner, Tensor):
            tensors[name] = inner
        elif name == "features":
            tensors |= {f"features[{index}]": tensor for index, tensor in enumerate(inner)}
        elif name in ("posterior", "real_score", "fake_score") and inner is not None:
            tensors |= {f"{name}.{key}": tensor for key, tensor in tensors_of(inner).items()}
    return tensors
