"""Training: the notebook loop, vgx and pythae in turns; their memory; the time of operations."""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from reference_loop import Notebook
from tables import ROOT, spread, table
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import vgx
from vgx.data.batches import Batch
from vgx.engine.engine import Engine
from vgx.engine.memory import keep_freed

WIDTHS = [32, 64, 128, 256, 512]
Candidate = Callable[[Tensor], object]  # one step on real images [B, C, H, W]
VGX, HALF = "vgx", "vgx, `precision: bf16`"
NOTEBOOK = "notebook loop"


def notebook(size: int, backbone: str) -> Candidate:
    loop = Notebook(size, 256, WIDTHS, backbone)

    def step(real: Tensor) -> object:
        loop.latents.clear()
        return loop.step(real, torch.randn(len(real), 256))

    return step


def ours(size: int, backbone: str, **train: object) -> Candidate:
    changes = {"image.size": size, "augment": [], "discriminator.backbone": backbone}
    changes |= {f"train.{name}": value for name, value in train.items()}
    engine = Engine(vgx.load_recipe(ROOT / "recipes" / "anime_vaegan.yaml", changes), 1000)
    return lambda real: {name: v.item() for name, v in engine.step(0, [Batch(real)]).items()}


def half(size: int, backbone: str) -> Candidate:
    return ours(size, backbone, precision="bf16")


def pythae(size: int, backbone: str) -> Candidate:  # noqa: C901 - three wrappers and a step
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

    class Discriminator(BaseDiscriminator):
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
    model = VAEGAN(config, encoder=Encoder(), decoder=Decoder(), discriminator=Discriminator())
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


def candidates() -> dict[str, Callable[[int, str], Candidate]]:
    makers: dict[str, Callable[[int, str], Candidate]] = {NOTEBOOK: notebook, VGX: ours, HALF: half}
    if importlib.util.find_spec("pythae"):
        makers[f"pythae {version('pythae')} VAEGAN"] = pythae
    return makers


def random_images(batch: int, size: int) -> Tensor:
    """[B, C, S, S]"""  # noqa: D400 - a shape
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0))


# --- the tables --------------------------------------------------------------------------------


def training(options: argparse.Namespace) -> str:
    size, backbone = (32, "test_resnet") if options.quick else (96, "resnet50")
    head = f"""## Training

The anime VAE-GAN at {size} pixels with {backbone}, without augmentation. The precision is `fp32`
where the table has no other. `train.precision: auto` takes `bf16` on a processor with AMX. On
another one, with AVX512-BF16 and without AMX, vgx had 1.40 times the images/s of the notebook loop
in float32 and 1.10 times in `bf16`, so there `fp32` is faster."""
    own = """Here each candidate has its own process, because candidates in one process share the
memory that its C library keeps. The table has the peak memory of each process. `vgx run` lets the C
library keep freed memory; the last row shows the gain."""
    first, second, third = (work(options, size, backbone) for work in (speeds, alone, floor))
    return f"{head}\n\n{first}\n\n{own}\n\n{second}\n\n{third}"


def speeds(options: argparse.Namespace, size: int, backbone: str) -> str:
    rows = []
    for batch in (4,) if options.quick else (32, 64):
        real = random_images(batch, size)
        steps = {name: make(size, backbone) for name, make in candidates().items()}
        for step in steps.values():
            step(real)
        speeds: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(options.rounds):
            for name, step in steps.items():
                start = time.perf_counter()
                for _ in range(options.steps):
                    step(real)
                speeds[name].append(options.steps * batch / (time.perf_counter() - start))
        for name, values in speeds.items():
            ratios = [a / b for a, b in zip(values, speeds[NOTEBOOK], strict=True)]
            rows.append([str(batch), name, spread(values), spread(ratios)])
    return table(["batch", "what", "images/s", "relative to the notebook"], rows)


def alone(options: argparse.Namespace, size: int, backbone: str) -> str:
    batch = 4 if options.quick else 64
    kept = f"{VGX}, freed memory kept"
    names = [name for name in candidates() if name != HALF]
    results: dict[str, list[dict[str, float]]] = {name: [] for name in [*names, kept]}
    for _ in range(options.rounds):
        for name, runs in results.items():
            arguments = [name, str(batch), str(size), backbone, str(options.steps)]
            command = [sys.executable, __file__, *arguments]
            done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
            runs.append(json.loads(done.stdout))
    rows = []
    for name, runs in results.items():
        values = {field: [run[field] for run in runs] for field in runs[0]}
        ratios = [a / b["speed"] for a, b in zip(values["speed"], results[VGX], strict=True)]
        memory = f"{statistics.median(values['peak']):,.0f}"
        system = f"{100 * statistics.median(values['system']):.0f} %"
        rows.append([name, spread(values["speed"]), spread(ratios), system, memory])
    header = ["what", "images/s", "relative to vgx", "time in the kernel", "peak memory, MB"]
    return f"{table(header, rows)}\n\nBatch {batch}."


def one(name: str, batch: int, size: int, backbone: str, steps: int) -> None:
    """Print speed and memory of one candidate in its own process, as JSON."""
    if name not in candidates():
        keep_freed()
    step = candidates().get(name, ours)(size, backbone)
    real = random_images(batch, size)
    step(real)
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    for _ in range(steps):
        step(real)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    system, user = after.ru_stime - before.ru_stime, after.ru_utime - before.ru_utime
    results = {"speed": steps * batch / seconds, "system": system / (system + user)}
    # On Linux `ru_maxrss` of a child includes its parent's memory; VmHWM does not.
    status = Path("/proc/self/status").read_text().split()
    peak = int(status[status.index("VmHWM:") + 1]) / 1000
    print(json.dumps({**results, "peak": peak}))


def floor(options: argparse.Namespace, size: int, backbone: str) -> str:
    """Compare the speed of a step with that of one convolution, and list its operations."""
    batch = 4 if options.quick else 64
    real = random_images(batch, size)
    rate = convolution_rate(batch)
    rows, shares = [], {}
    for name, make in candidates().items():
        if name == HALF:
            continue
        step = make(size, backbone)
        step(real)
        with FlopCounterMode(display=False) as counter:
            step(real)
        each = counter.get_total_flops() / batch / 1e9
        start = time.perf_counter()
        step(real)
        speed = batch / (time.perf_counter() - start)
        reached = f"{100 * speed * each / rate:.0f} %"
        rows.append([name, f"{each:.2f}", f"{rate / each:.1f}", reached])
        if name == VGX:
            shares = operations(step, real)
    header = ["what", "GFLOP for an image", "images/s at that rate", "reached"]
    intro = f"One convolution (3x3, 128 channels, 12x12, forward) reaches {rate:,.0f} GFLOP/s here."
    listed = [[name, f"{100 * share:.0f} %"] for name, share in shares.items()]
    return (
        f"{intro} If a step had only such convolutions:\n\n{table(header, rows)}\n\n"
        f"Share of each operation in the time of a step of vgx:\n\n"
        f"{table(['operations', 'share'], listed)}"
    )


def convolution_rate(batch: int) -> float:
    """Return the GFLOP/s of a convolution that suits the machine."""
    network = torch.nn.Conv2d(128, 128, 3, padding=1, bias=False)
    network = network.to(memory_format=torch.channels_last)
    images = torch.rand(batch, 128, 12, 12).to(memory_format=torch.channels_last)
    times = []
    with torch.no_grad():
        for _ in range(10):
            start = time.perf_counter()
            network(images)
            times.append(time.perf_counter() - start)
    return 2 * batch * 12 * 12 * 128 * 128 * 9 / min(times) / 1e9


def operations(step: Candidate, real: Tensor) -> dict[str, float]:
    """Return the share of each kind of operation in the time of a step."""
    kinds = {
        "convolutions, backward": ("convolution_backward",),
        "convolutions, forward": ("mkldnn_convolution", "_convolution", "slow_conv"),
        "BatchNorm, backward": ("native_batch_norm_backward",),
        "BatchNorm, forward": ("native_batch_norm",),
        "activations": ("threshold_backward", "clamp_min", "leaky_relu", "relu", "sigmoid"),
        "optimizers": ("_fused_adam",),
    }
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step(real)
    times = {event.key: event.self_cpu_time_total for event in profile.key_averages()}
    whole, shares = sum(times.values()), dict.fromkeys(kinds, 0.0)
    rest = whole
    for key, spent in times.items():
        bare = key.removeprefix("aten::").rstrip("_")
        for kind, names in kinds.items():
            if any(bare == name.rstrip("_") or bare.startswith(f"{name}_") for name in names):
                shares[kind] += spent / whole
                rest -= spent
                break
    return {**shares, "all others": rest / whole}


if __name__ == "__main__":
    one(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
