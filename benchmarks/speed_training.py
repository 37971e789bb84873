"""Training: the notebook loop, vgx and pythae in turns."""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable
from importlib.metadata import version

import torch
from reference_loop import Notebook
from tables import ROOT, spread, table
from torch import Tensor

import vgx
from vgx.engine import Engine

WIDTHS = [32, 64, 128, 256, 512]
Contender = Callable[[Tensor], object]  # one step on real images [B, C, H, W]


def notebook(size: int, backbone: str) -> Contender:
    loop = Notebook(size, 256, WIDTHS, backbone)

    def step(real: Tensor) -> object:
        loop.latents.clear()
        return loop.step(real, torch.randn(len(real), 256))

    return step


def ours(size: int, backbone: str) -> Contender:
    changes = {"image.size": size, "augment": [], "discriminator.backbone": backbone}
    recipe = vgx.load_recipe(ROOT / "recipes" / "anime_vaegan.yaml", changes)
    engine = Engine(recipe, 1000)
    return lambda real: {name: v.item() for name, v in engine.step(0, [real]).items()}


def pythae(size: int, backbone: str) -> Contender:  # noqa: C901 - three wrappers and a step
    """Its VAEGAN with the notebook's networks, stepped as its own trainer does."""
    from pythae.models import VAEGAN, VAEGANConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseDiscriminator, BaseEncoder

    loop = Notebook(size, 256, WIDTHS, backbone)

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.inner = loop.encoder

        def forward(self, x: Tensor) -> ModelOutput:
            mu, logvar = self.inner(x)
            return ModelOutput(embedding=mu, log_covariance=logvar)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.inner = loop.decoder

        def forward(self, z: Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=torch.sigmoid(self.inner(z)))

    class Judge(BaseDiscriminator):
        depth = 1

        def __init__(self) -> None:
            super().__init__()
            self.inner = loop.discriminator

        def forward(self, x: Tensor, output_layer_levels: object = None) -> ModelOutput:
            if output_layer_levels:
                features = self.inner.backbone(self.inner.normalize(x))[-1]
                return ModelOutput(embedding_layer_1=features)
            return ModelOutput(embedding=torch.sigmoid(self.inner(x).mean((1, 2, 3))))

    config = VAEGANConfig(input_dim=(3, size, size), latent_dim=256, reconstruction_layer=1)
    model = VAEGAN(config, encoder=Encoder(), decoder=Decoder(), discriminator=Judge())
    parts = {
        "encoder": model.encoder,
        "decoder": model.decoder,
        "discriminator": model.discriminator,
    }
    optimizers = {name: torch.optim.Adam(part.parameters(), 1e-4) for name, part in parts.items()}

    def step(real: Tensor) -> object:
        # CoupledOptimizerAdversarialTrainer._optimizers_step, without its margin that leaves out
        # updates: all three are done. It steps the decoder only after the discriminator's backward.
        output = model({"data": real})
        for name in parts:
            optimizers[name].zero_grad()
            output[f"{name}_loss"].backward(retain_graph=name != "discriminator")
        for optimizer in optimizers.values():
            optimizer.step()
        return output.loss.item()

    return step


def training(options: argparse.Namespace) -> str:
    size, backbone = (32, "test_resnet") if options.quick else (96, "resnet50")
    makers = {"notebook loop": notebook, "vgx": ours}
    if importlib.util.find_spec("pythae"):
        makers[f"pythae {version('pythae')} VAEGAN"] = pythae
    rows = []
    for batch in (4,) if options.quick else (32, 64):
        real = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
        contenders = {name: make(size, backbone) for name, make in makers.items()}
        for step in contenders.values():
            step(real)
        speeds: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(options.rounds):
            for name, step in contenders.items():
                start = time.perf_counter()
                for _ in range(options.steps):
                    step(real)
                speeds[name].append(options.steps * batch / (time.perf_counter() - start))
        for name, values in speeds.items():
            ratios = [a / b for a, b in zip(values, speeds["notebook loop"], strict=True)]
            rows.append([str(batch), name, spread(values), spread(ratios)])
    said = f"The anime VAE-GAN at {size} pixels with {backbone}, float32, without augmentation."
    head = f"## Training\n\n{said}"
    return f"{head}\n\n{table(['batch', 'what', 'pictures/s', 'beside the notebook'], rows)}"
