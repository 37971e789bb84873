"""The anime VAE-GAN as a plain notebook would write it: what vgx is compared with.

Eager, PIL transforms in a DataLoader, every forward computed as the flow says, `loss.item()` every
step. A test trains this and vgx from the same weights, batches and noise: same numbers.

    python benchmarks/reference_loop.py FOLDER --steps 20 --batch 32
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.utils import save_image


class Faces(Dataset):
    """RGB pictures of a local data set in hub layout, transformed each time they are read."""

    def __init__(self, path: str, size: int) -> None:
        import datasets

        rows = datasets.load_dataset(path, split="train")
        self.rows = rows.filter(lambda row: row["image"].mode == "RGB")
        resize, flip = transforms.Resize((size, size)), transforms.RandomHorizontalFlip(0.5)
        rotate, scale = transforms.RandomRotation(10), transforms.ToTensor()  # 0..255 -> 0..1
        self.transform = transforms.Compose([resize, flip, rotate, scale])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(self.rows[index]["image"])


class Encoder(nn.Module):
    """Stride-2 convolutions, then mu and logvar."""

    def __init__(self, widths: Sequence[int], side: int, latent: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, width in zip([3, *widths], widths, strict=False):
            conv = nn.Conv2d(before, width, 3, stride=2, padding=1, bias=False)
            layers += [conv, nn.BatchNorm2d(width), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers)
        self.mu = nn.Linear(widths[-1] * side**2, latent)
        self.logvar = nn.Linear(widths[-1] * side**2, latent)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.layers(x).flatten(1)  # [B, 4608]
        return self.mu(h), self.logvar(h)  # [B, 256] each


def make_decoder(widths: Sequence[int], side: int, latent: int) -> nn.Module:
    """Linear, then transposed convolutions; its output are logits."""
    first = widths[0]
    layers = [nn.Linear(latent, first * side**2), nn.Unflatten(1, (first, side, side))]
    for before, width in pairwise(widths):
        conv = nn.ConvTranspose2d(before, width, 4, stride=2, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(width), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.ConvTranspose2d(widths[-1], 3, 4, stride=2, padding=1))


class Discriminator(nn.Module):
    """A timm backbone's last feature map, scored by a 1x1 convolution."""

    def __init__(self, backbone: str) -> None:
        super().__init__()
        self.backbone = timm.create_model(backbone, features_only=True)
        self.head = nn.Conv2d(self.backbone.feature_info.channels()[-1], 1, 1)
        config = self.backbone.pretrained_cfg
        self.normalize = transforms.Normalize(config["mean"], config["std"])

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(self.normalize(x))[-1])  # [B, 1, 3, 3]


class Notebook:
    """The networks, their optimizers, and one step."""

    def __init__(self, size: int, latent: int, widths: Sequence[int], backbone: str) -> None:
        side = size // 2 ** len(widths)
        self.encoder = Encoder(widths, side, latent)
        self.decoder = make_decoder(widths[::-1], side, latent)
        self.discriminator = Discriminator(backbone)
        self.latents: list[Tensor] = []

    def make_optimizers(self) -> None:
        generator = [*self.encoder.parameters(), *self.decoder.parameters()]
        critic = self.discriminator.parameters()
        self.g_optimizer = torch.optim.Adam(generator, lr=2e-4, betas=(0.5, 0.999))
        self.d_optimizer = torch.optim.Adam(critic, lr=2e-4, betas=(0.5, 0.999))

    def step(self, real: Tensor, eps: Tensor) -> dict[str, float]:
        bce = F.binary_cross_entropy_with_logits
        # G makes images.
        mu, logvar = self.encoder(real)
        z = mu + torch.exp(logvar / 2) * eps
        logits = self.decoder(z)
        fake = torch.sigmoid(logits)
        self.latents.append(z.detach())
        # D judges, G is updated.
        score = self.discriminator(fake)
        g1 = bce(score, torch.ones_like(score))
        g2 = 100 * F.l1_loss(fake, real)
        g3 = bce(logits, real)
        kl = -0.5 * torch.sum(1 + logvar - mu**2 - logvar.exp(), dim=1).mean()
        g4 = kl / real[0].numel()
        self.g_optimizer.zero_grad()
        (g1 + g2 + g3 + g4).backward()
        self.g_optimizer.step()
        # D judges, D is updated.
        real_score, fake_score = self.discriminator(real), self.discriminator(fake.detach())
        d = bce(real_score, torch.ones_like(real_score))  # D1
        d = d + bce(fake_score, torch.zeros_like(fake_score))  # D2
        self.d_optimizer.zero_grad()
        d.backward()
        self.d_optimizer.step()
        losses = {"g1": g1, "g2": g2, "g3": g3, "g4": g4, "d": d}
        return {name: loss.item() for name, loss in losses.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path")
    for name, default in (("--steps", 20), ("--batch", 32)):
        parser.add_argument(name, type=int, default=default)
    options = parser.parse_args()
    notebook = Notebook(96, 256, [32, 64, 128, 256, 512], "resnet50")
    notebook.make_optimizers()
    faces = Faces(options.path, 96)
    loader = DataLoader(faces, options.batch, shuffle=True, drop_last=True, num_workers=2)
    done, start = 0, time.perf_counter()
    while done < options.steps:
        notebook.latents.clear()
        for real in loader:
            losses = notebook.step(real, torch.randn(len(real), 256))
            done += 1
            speed = done * options.batch / (time.perf_counter() - start)
            print(done, losses, f"{speed:.1f} images/s")
            if done == options.steps:
                break
    # Three latents of the last epoch, random weights that sum to 1, a 10x10 picture.
    codes = torch.cat(notebook.latents)
    anchors = codes[torch.randperm(len(codes))[:3]]
    weights = torch.from_numpy(np.random.default_rng().dirichlet([1, 1, 1], 100)).float()
    with torch.no_grad():
        save_image(
            torch.sigmoid(notebook.decoder.eval()(weights @ anchors)), "reference.png", nrow=10
        )


if __name__ == "__main__":
    main()
