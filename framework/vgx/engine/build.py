"""Building a recipe's networks, and what every use of them shares: labels, precision, the device.

Letters: B images, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vgx import rng
from vgx.distributed.processes import local_rank
from vgx.distributed.state import group
from vgx.engine.memory import MemoryLimit
from vgx.engine.surroundings import untouched
from vgx.errors import RecipeError
from vgx.parts.kinds import Decoder, Discriminator, Encoder
from vgx.recipe.model import Recipe

Labelling = Encoder | Decoder | Discriminator  # parts that may take labels


def build_network(recipe: Recipe, name: str) -> nn.Module | None:
    """Build a network of the recipe by its name in `Recipe.networks`; None when it has none.

    The initial weights of each network are drawn with their own key, so changing one network does
    not change the weights of the others.
    """
    part: Any = recipe.networks.get(name)
    if part is None:
        return None
    shapes = (recipe.latent, recipe.image) if name == "decoder" else (recipe.image, recipe.latent)
    ambient = rng.ambient(recipe.train.seed, f"weights of the {name}")
    with ambient, MemoryLimit(name), untouched(part):
        network: nn.Module = part.build(*shapes)
    return network


def untrained(recipe: Recipe) -> Recipe:
    """Return the recipe without outside weights, for networks that load a checkpoint."""
    names = ("encoder", "decoder", "discriminator")
    parts = {name: getattr(recipe, name) for name in names}
    changed: dict[str, Any] = {name: part and part.untrained() for name, part in parts.items()}
    several = recipe.discriminators.items()
    changed["discriminators"] = {name: part.untrained() for name, part in several}
    changed["start"] = None
    changed["losses"] = tuple(loss.untrained() for loss in recipe.losses)
    return recipe.model_copy(update=changed)


def sigmoid(logits: Tensor) -> Tensor:
    """[B, C, H, W]  Images in [0, 1], in float32 at least."""
    return at_least_float32(logits).sigmoid()


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return a tensor in float32; one in float64 stays in float64."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def label_inputs(part: Labelling | None, labels: Tensor | None) -> tuple[Tensor, ...]:
    """Return the labels as further inputs of a network: nothing unless its part is conditional."""
    if labels is None or not getattr(part, "conditional", False):
        return ()
    return (labels,)


def encoder_inputs(
    part: Encoder | None, labels: Tensor | None, decoder: nn.Module
) -> tuple[Tensor | nn.Module, ...]:
    """Return what an encoder takes beside images: labels if it is conditional, then the decoder."""
    further = label_inputs(part, labels)
    return (*further, decoder) if part is not None and part.uses_decoder else further


@contextmanager
def evaluating(networks: Iterable[nn.Module]) -> Iterator[None]:
    """Put networks into evaluation mode in the block, and restore the mode of each module after it.

    Inside, BatchNorm's statistics do not change and dropout draws nothing.
    """
    modules = [(module, module.training) for network in networks for module in network.modules()]
    for module, _ in modules:
        module.training = False
    try:
        yield
    finally:
        for module, training in modules:
            module.training = training


def devices() -> list[str]:
    """Return the names of the devices that this machine has: "cpu", "cuda", "cuda:0" and others."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return ["cpu"]
    kind = accelerator.type
    return ["cpu", kind, *(f"{kind}:{i}" for i in range(torch.accelerator.device_count()))]


def pick_device(name: str | torch.device | None) -> torch.device:
    """Return the device with this name; by default a GPU with CUDA if there is one, else the CPU.

    Raises `RecipeError` for a device that this machine does not have or that does not work.
    """
    names = devices()
    if name is None:
        name = "cuda" if "cuda" in names else "cpu"
        if name == "cuda" and group().size > 1:
            name = f"cuda:{local_rank()}"
    if str(name) not in names:
        default = "by default vgx takes cuda if there is one, else cpu"
        raise RecipeError(f"device '{name}': this machine has {', '.join(names)}; {default}")
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        first = str(error).partition("\n")[0]
        raise RecipeError(f"device '{name}': {first}") from error


def use_same_kernels() -> None:
    """Let a GPU compute in TF32, and with kernels that give the same bits each time."""
    # Convolutions and products in TF32: their float32 inputs lose 13 bits.
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.deterministic = True
    # The gradients of these two are sums in any order.
    torch.backends.cuda.enable_flash_sdp(enabled=False)
    torch.backends.cuda.enable_mem_efficient_sdp(enabled=False)


@contextmanager
def in_full_precision() -> Iterator[None]:
    """Let a GPU compute without TF32 in the block, so that outputs can be compared."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def unused_gpu(device: torch.device) -> str:
    """Return why a GPU without CUDA is not used; an empty text if there is none."""
    others = devices()[1:2]
    if device.type != "cpu" or not others or others[0] == "cuda":
        return ""
    text = "The GPU of this machine is not used, because vgx is not tested on it"
    return f"{text}; to try it: --device {others[0]}"
