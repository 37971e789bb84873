"""How fast vgx is beside others, on this machine: tables in Markdown for docs/performance.md.

Contenders take turns in one process, so that a machine whose speed drifts treats all alike; figures
are medians over the rounds, with least and most.

    pip install -e '.[bench]' && python benchmarks/performance.py
    python benchmarks/performance.py --quick --out /dev/stdout       # only shows that it works
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from PIL import Image
from reference_loop import Notebook
from torch import Tensor

import vgx
from vgx.data import open_store
from vgx.engine import Engine

ROOT = Path(__file__).parents[1]
WIDTHS = [32, 64, 128, 256, 512]
Contender = Callable[[Tensor], object]  # one step on real images [B, C, H, W]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def spread(values: Sequence[float]) -> str:
    """The median, with the least and the most."""
    return f"{statistics.median(values):.2f} [{min(values):.2f}..{max(values):.2f}]"


# --- training ----------------------------------------------------------------------------------


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


# --- data, sampling, starting ------------------------------------------------------------------


def data(options: argparse.Namespace) -> str:
    faces = vgx.discover().part("dataset", "drawn-faces")(count=64).build(vgx.ImageSpec(100))
    pictures = []
    for index in range(64):
        file = io.BytesIO()
        faces[index].save(file, "JPEG", quality=90)
        pictures.append(file.getvalue())

    class Jpegs:
        fingerprint = "benchmark"

        def __len__(self) -> int:
            return 256 if options.quick else 16_384

        def __getitem__(self, index: int) -> Image.Image:
            return Image.open(io.BytesIO(pictures[index % 64]))

    speeds = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["VGX_CACHE"] = folder
            start = time.perf_counter()
            open_store(Jpegs(), vgx.ImageSpec(96))
            speeds.append(len(Jpegs()) / (time.perf_counter() - start))
    rows = [["JPEGs of 100 pixels decoded, resized and stored", f"{spread(speeds)} pictures/s"]]
    return f"## Data\n\n{table(['what', 'how fast'], rows)}"


def sampling(options: argparse.Namespace) -> str:
    recipe = vgx.load_recipe(ROOT / "recipes" / "anime_vaegan.yaml")
    decoder = recipe.decoder.build(recipe.latent, recipe.image).eval()
    model = vgx.Model(recipe, 0, torch.zeros(1, 256), None, decoder, None)
    z = torch.randn(64 if options.quick else 2000, 256)  # [N, Z]
    speeds = []
    for _ in range(options.rounds):
        start = time.perf_counter()
        model.decode(z)
        speeds.append(len(z) / (time.perf_counter() - start))
    rows = [["latents decoded at 96 pixels", f"{spread(speeds)} pictures/s"]]
    return f"## Sampling\n\n{table(['what', 'how fast'], rows)}"


def cpu_seconds(command: Sequence[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)  # noqa: S603
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def starting(options: argparse.Namespace) -> str:
    python = [sys.executable, "-m", "vgx"]
    commands = {
        "`vgx --help`": [*python, "--help"],
        "`vgx plugins`": [*python, "plugins"],
        "`import torch, timm`": [sys.executable, "-c", "import torch, timm"],
        "`vgx check recipes/tiny.yaml`": [*python, "check", "recipes/tiny.yaml"],
    }
    with tempfile.TemporaryDirectory() as folder:
        os.environ["VGX_CACHE"] = folder
        rows = [
            [name, spread([cpu_seconds(command) for _ in range(options.rounds)])]
            for name, command in commands.items()
        ]
    return f"## Starting\n\n{table(['command', 'CPU seconds'], rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small, to see that it works")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="in one turn of a contender")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "performance.md")
    options = parser.parse_args()
    if options.quick:
        options.rounds = options.steps = 1
    device = f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    python = f"Python {platform.python_version()}"
    about = (
        "# Performance\n\n"
        "Written by `python benchmarks/performance.py`. Contenders take turns in one process; "
        f"figures are medians [least..most] of {options.rounds} rounds.\n\n"
        f"Here: {device}; {python}, torch {version('torch')}, timm {version('timm')}."
    )
    parts = [part(options) for part in (training, data, sampling, starting)]
    options.out.write_text("\n\n".join([about, *parts]) + "\n")


if __name__ == "__main__":
    main()
