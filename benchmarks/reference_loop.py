"""The anime VAE-GAN as a plain notebook writes it, which vgx is compared with.

Eager mode, PIL transforms in a DataLoader, a forward pass for each use of a network, `loss.item()`
in every step. A test trains this and vgx from the same weights, batches and noise, and expects the
same numbers.

    python benchmarks/reference_loop.py FOLDER --steps 20 --batch 32
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from itertools import pairwise

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.utils import save_image


class Faces(Dataset):
    """RGB images of a folder in hub layout, transformed each time they are read."""

    def __init__(self, path: str, size: int) -> None:
        import datasets  # not needed by who brings images of another kind

        rows = datasets.load_dataset(path, split="train")
        self.rows = rows.filter(lambda row: row["image"].mode == "RGB")
        resize, flip = transforms.Resize((size, size)), transforms.RandomHorizontalFlip(0.5)
        edge, crop = transforms.Pad(size // 4, padding_mode="edge"), transforms.CenterCrop(size)
        turn = transforms.RandomRotation(10, transforms.InterpolationMode.BILINEAR)
        tensor = transforms.ToTensor()  # PIL, 0..255 -> [3, 96, 96] in 0..1
        self.transform = transforms.Compose([resize, flip, edge, turn, crop, tensor])

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
    """Linear, then transposed convolutions; its outputs are logits."""
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
        g = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.g_optimizer = torch.optim.Adam(g, lr=3e-4, betas=(0.5, 0.999))
        self.d_optimizer = torch.optim.Adam(self.discriminator.parameters(), 5e-5, (0.5, 0.999))

    def step(self, real: Tensor, eps: Tensor) -> dict[str, float]:
        bce = F.binary_cross_entropy_with_logits
        mu, logvar = self.encoder(real)
        z = mu + torch.exp(logvar / 2) * eps  # G makes images
        logits = self.decoder(z)
        fake = torch.sigmoid(logits)
        self.latents.append(z.detach())
        # D scores the fakes, G is updated.
        score = self.discriminator(fake)
        g1, g2 = bce(score, torch.ones_like(score)), 100 * F.l1_loss(fake, real)
        g3 = bce(logits, real)
        g4 = -0.5 * torch.sum(1 + logvar - mu**2 - logvar.exp(), 1).mean() / real[0].numel()
        self.g_optimizer.zero_grad()
        (g1 + g2 + g3 + g4).backward()
        self.g_optimizer.step()
        # D scores both, D is updated.
        yes, no = self.discriminator(real), self.discriminator(fake.detach())
        d = bce(yes, torch.ones_like(yes)) + bce(no, torch.zeros_like(no))
        self.d_optimizer.zero_grad()
        d.backward()
        self.d_optimizer.step()
        return {"g1": g1.item(), "g2": g2.item(), "g3": g3.item(), "g4": g4.item(), "d": d.item()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=32)
    options = parser.parse_args()
    notebook = Notebook(96, 256, [32, 64, 128, 256, 512], "resnet50")
    loader = DataLoader(Faces(options.path, 96), options.batch, shuffle=True, drop_last=True)
    done, start = 0, time.perf_counter()
    while done < options.steps:
        notebook.latents.clear()
        for real in loader:
            losses, done = notebook.step(real, torch.randn(len(real), 256)), done + 1
            print(done, losses, done * options.batch / (time.perf_counter() - start), "images/s")
            if done == options.steps:
                break
    # Three latents of the last epoch, random weights that sum to 1, a 10x10 image.
    codes = torch.cat(notebook.latents)
    weights = torch.distributions.Dirichlet(torch.ones(3)).sample((100,))  # [100, 3]
    z = weights @ codes[torch.randperm(len(codes))[:3]]  # [100, 256]
    images = torch.sigmoid(notebook.decoder.eval()(z)).detach()
    save_image(images, "reference.png", nrow=10)


if __name__ == "__main__":
    main()
