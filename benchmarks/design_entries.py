"""The designs that `designs.py` trains: each is a list of settings of the recipe anime_vaegan."""

from __future__ import annotations

from dataclasses import dataclass

COMMON = (
    "image.size=64", "latent=64", "dataset={type: drawn-faces, count: 3000}",
    "augment=[{type: horizontal-flip, p: 0.5}]", "train.steps=500", "train.batch=32",
    "discriminator.backbone=test_resnet",
)  # fmt: skip
WIDE = ("encoder.widths=[32, 64, 128, 256]", "decoder.widths=[256, 128, 64, 32]")
NARROW = ("encoder.widths=[16, 32, 64, 128]", "decoder.widths=[128, 64, 32, 16]")
RATES = "train.optimizers={generator: {lr: %s}, discriminator: {lr: %s}}"
CONSTANT = RATES % ("1.0e-3", "2.0e-4")
FALLING = RATES % (
    "{from: 1.0e-3, to: 1.0e-5, shape: cosine}", "{from: 2.0e-4, to: 2.0e-6, shape: cosine}",
)  # fmt: skip
FRESH = "sampler={type: weighted-mix, of: 3, anchors: fresh}"
FITTED = "sampler=gaussian-mixture"
SELDOM = ("losses.0.every=8", "train.ema=0.99")
# A lower weight of the L1 term, so that the KL term counts more beside it.
MORE_KL = (*COMMON, *NARROW, *SELDOM, FALLING, FITTED, "losses.1.weight=15")
MOMENTUM = (
    *MORE_KL, "train.optimizers.generator.lr={from: 2.0e-3, to: 2.0e-5, shape: cosine}",
    "train.optimizers.generator.betas=[0.9, 0.999]",
)  # fmt: skip
SMALL_BATCH = (*MOMENTUM, "train.batch=16")
FAST = (*SMALL_BATCH, "losses.1.weight=100")
STRONG_KL = (*SMALL_BATCH, "losses.3.weight=4")
DEEP = ("encoder.widths=[16, 32, 96, 256]", "decoder.widths=[256, 96, 32, 16]")
WITH = "losses=[{type: bce-adversarial, every: 8}, {type: l1, weight: 100}, bce, kl, %s]"
FEATURES = WITH % "{type: feature-matching, weight: 30, every: 8}"
RANDOM = WITH % "{type: perceptual, backbone: resnet18, layers: [0, 1], weight: 10, every: 4}"


@dataclass(frozen=True)
class Design:
    """One design."""

    what: str  # for the page
    settings: tuple[str, ...]


DESIGNS = {
    "before": Design("The quickstart of the first edition.", (*COMMON, *WIDE, CONSTANT, FRESH)),
    "seldom": Design(
        "Networks of half the widths, and both players' adversarial terms in every eighth step"
        " alone, where they count eight times: 2.7 times as many steps in the same time.",
        (*COMMON, *NARROW, *SELDOM, CONSTANT, FRESH),
    ),
    "falling": Design(
        "As `seldom`, with learning rates that fall to a hundredth; latents are drawn from a"
        " mixture of Gaussians that is fitted to those of the images.",
        (*COMMON, *NARROW, *SELDOM, FALLING, FITTED),
    ),
    "more_kl": Design(
        "As `falling`, with a weight of 15 instead of 100 for the L1 term, so that the latents come"
        " nearer to N(0, I).",
        MORE_KL,
    ),
    "more_kl_wide": Design(
        "As `more_kl`, with the widths of before.",
        (*MORE_KL, *WIDE),
    ),
    "momentum": Design(
        "As `more_kl`, with Adam's own momentum, 0.9, for the generator instead of 0.5, and a rate"
        " of 2e-3.",
        MOMENTUM,
    ),
    "small_batch": Design(
        "As `momentum`, in steps of 16 images.",
        SMALL_BATCH,
    ),
    "deep": Design(
        "As `momentum`, with more channels where the maps are small: widths of 16, 32, 96, 256.",
        (*MOMENTUM, *DEEP),
    ),
    "fast": Design("As `small_batch`, with a weight of 100 for the L1 term again.", FAST),
    "fast_wide": Design("As `fast`, with the widths of before.", (*FAST, *WIDE)),
    "more_faces": Design("As `fast`, with 12,000 faces.", (*FAST, "dataset.count=12000")),
    "squares": Design(
        "As `fast`, with squared differences in place of absolute ones.",
        (*FAST, "losses.1={type: l2, weight: 400}"),
    ),
    "features": Design(
        "As `fast`, with a term that compares the discriminator's features of an image and its"
        " reconstruction, in every eighth step.",
        (*FAST, FEATURES),
    ),
    "random_features": Design(
        "As `fast`, with a term that compares features of a random network, in every fourth step.",
        (*FAST, RANDOM),
    ),
    "late": Design(
        "As `fast`, where the adversarial terms begin after 1,200 steps.",
        (*FAST, "losses.0.start=1200"),
    ),
    "hinge": Design(
        "As `fast`, with the hinge loss, whose gradient at the decoder's last layer is kept at a"
        " tenth of that of the L1 term.",
        (*FAST, "losses.0={type: hinge, every: 8, weight: {against: [l1], factor: 0.1}}"),
    ),
    "augmented": Design(
        "As `fast`, with flips and rotations of all inputs of the discriminator.",
        (*FAST, "diff_augment=[{type: horizontal-flip}, {type: rotation, degrees: 5}]"),
    ),
    "strong_kl": Design(
        "As `small_batch`, with a weight of 4 for the KL term, besides 15 for the L1 term.",
        STRONG_KL,
    ),
    "prior_judged": Design(
        "As `strong_kl`, where images of N(0, I) are fakes, too, in every second step.",
        (*STRONG_KL, "train.fakes=[recon, prior]", "losses.0.every=2"),
    ),
    "residual": Design(
        "As `fast`, with a decoder of residual blocks that double by repeating each place, then"
        " convolve.",
        (*FAST, "decoder={type: residual, widths: [48, 32, 16, 8]}"),
    ),
}
