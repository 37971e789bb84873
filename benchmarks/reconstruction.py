"""Measure how well a run reconstructs unseen images: PSNR on another split of its data.

python benchmarks/reconstruction.py RUN --split 'train[11500:]'
"""

from __future__ import annotations

import argparse

import torch

import vgx
from vgx.data.batches import as_images
from vgx.data.store import open_source, open_store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--split", required=True, help="a split of the run's huggingface data set")
    options = parser.parse_args()
    model = vgx.load(options.run, networks=("encoder", "decoder"))
    dataset = model.recipe.dataset.model_copy(update={"split": options.split})
    source, _ = open_source(dataset, model.recipe.image)
    images = as_images(open_store(source, model.recipe.image).images, torch.device("cpu"))
    error = (model.decode(model.encode(images)) - images).square().flatten(1).mean(1)  # [N]
    # The mean image: a baseline that a trained network must beat.
    flat = (images.mean(0) - images).square().flatten(1).mean(1)  # [N]
    print(f"{options.run}, step {model.step}: {len(images)} images of {options.split}")
    for name, mse in (("reconstruction", error), ("the mean image", flat)):
        each = -10 * mse.log10()
        print(
            f"{name}: PSNR of the mean error {-10 * mse.mean().log10():.2f} dB, "
            f"mean PSNR {each.mean():.2f} dB"
        )


if __name__ == "__main__":
    main()
