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
ADAM = "train.optimizers={generator: {lr: 1.0e-3}, discriminator: {lr: 2.0e-4}}"
FRESH = "sampler={type: weighted-mix, of: 3, anchors: fresh}"
FITTED = "sampler=gaussian-mixture"
SELDOM = (*COMMON, *NARROW, "losses.0.every=8", ADAM)
STRONG_KL = (*SELDOM, FITTED, "train.ema=0.995", "losses.3.weight=32")
MUON = (*STRONG_KL, "train.optimizers.generator={type: muon, lr: 0.01, momentum: 0.9}")
GROUP = (*MUON, "decoder.norm=group")
SQUARES = (*GROUP, "losses.1={type: l2, weight: 400}")
KL_300 = (*SQUARES, "losses.3.weight=300", "train.ema_warmup=true")
FALLING = (
    "train.optimizers.generator.lr={from: 0.01, to: 1.0e-4, shape: cosine}",
    "train.optimizers.discriminator.lr={from: 2.0e-4, to: 2.0e-6, shape: cosine}",
)
AUGMENTED = "diff_augment=[{type: horizontal-flip}, {type: rotation, degrees: 5}]"
QUICKSTART = (*KL_300, AUGMENTED)
MIDDLE = ("encoder.widths=[32, 64, 128, 128]", "decoder.widths=[128, 128, 64, 32]")
TERMS = (
    "[{type: bce-adversarial, every: 8}, {type: l2, weight: 400}, bce, {type: kl, weight: 32}, %s]"
)
FEWER = "[{type: bce-adversarial, every: 8}, {type: l2, weight: 400}, {type: kl, weight: 32}]"
FEATURES = "{type: feature-matching, weight: 30, every: 8}"
RANDOM = "{type: perceptual, backbone: resnet18, layers: [0, 1], weight: 10, every: 4}"


@dataclass(frozen=True)
class Design:
    """One design."""

    what: str  # for the page
    settings: tuple[str, ...]
    share: float = 1  # of the time


DESIGNS = {
    "before": Design("The quickstart of the first edition.", (*COMMON, *WIDE, ADAM, FRESH)),
    "seldom": Design(
        "Networks of half the widths, and both players' adversarial terms in every eighth step"
        " only, multiplied by eight there; weights are averaged with 0.99.",
        (*SELDOM, FRESH, "train.ema=0.99"),
    ),
    "strong_kl": Design(
        "As `seldom`, with a weight of 32 for the KL term; latents are drawn from a mixture of"
        " Gaussians that is fitted to those of the images; weights are averaged with 0.995.",
        STRONG_KL,
    ),
    "momentum": Design(
        "As `strong_kl`, with Adam's own momentum, 0.9, for the generator instead of 0.5, and a"
        " rate of 2e-3.",
        (*STRONG_KL, "train.optimizers.generator={lr: 2.0e-3, betas: [0.9, 0.999]}"),
    ),
    "muon": Design("As `strong_kl`, where Muon trains the generator, at a rate of 0.01.", MUON),
    "group": Design(
        "As `muon`, with GroupNorm in the decoder, which keeps no averages, in place of BatchNorm.",
        GROUP,
    ),
    "squares": Design(
        "As `group`, with squared differences in place of absolute ones.",
        SQUARES,
    ),
    "falling": Design(
        "As `squares`, with learning rates that fall to a hundredth by a cosine.",
        (*SQUARES, *FALLING),
    ),
    "weak_kl": Design(
        "As `squares`, with a weight of 8 for the KL term.", (*SQUARES, "losses.3.weight=8")
    ),
    "kl_100": Design(
        "As `squares`, with a weight of 100 for the KL term.", (*SQUARES, "losses.3.weight=100")
    ),
    "kl_300": Design(
        "As `squares`, with a weight of 300 for the KL term, and `ema_warmup`: averaged weights"
        " soon forget the first ones.",
        KL_300,
    ),
    "without_bce": Design(
        "As `squares`, without binary cross-entropy beside the squared differences.",
        (*(each for each in SQUARES if not each.startswith("losses.")), f"losses={FEWER}"),
    ),
    "small_batch": Design("As `squares`, in steps of 16 images.", (*SQUARES, "train.batch=16")),
    "wide": Design("As `squares`, with the widths of before.", (*SQUARES, *WIDE)),
    "middle": Design(
        "As `squares`, with widths between: 32, 64, 128, 128.",
        (*SQUARES, *MIDDLE),
    ),
    "more_faces": Design("As `squares`, with 12,000 faces.", (*SQUARES, "dataset.count=12000")),
    "features": Design(
        "As `squares`, with a term that compares the discriminator's features of an image and its"
        " reconstruction, in every eighth step.",
        (*SQUARES, f"losses={TERMS % FEATURES}"),
    ),
    "random_features": Design(
        "As `squares`, with a term that compares features of a random network, in every fourth"
        " step.",
        (*SQUARES, f"losses={TERMS % RANDOM}"),
    ),
    "late": Design(
        "As `squares`, where the adversarial terms begin after 800 steps.",
        (*SQUARES, "losses.0.start=800"),
    ),
    "adaptive": Design(
        "As `squares`, with the hinge loss, whose gradient at the decoder's last layer is kept at a"
        " tenth of that of the L2 term.",
        (*SQUARES, "losses.0={type: hinge, every: 8, weight: {against: [l2], factor: 0.1}}"),
    ),
    "augmented": Design(
        "As `squares`, with flips and rotations of all inputs of the discriminator.",
        (*SQUARES, AUGMENTED),
    ),
    "prior_judged": Design(
        "As `squares`, where the discriminator also sees images of N(0, I) as fakes.",
        (*SQUARES, "train.fakes=[recon, prior]"),
    ),
    "residual": Design(
        "As `squares`, with a narrower decoder of residual blocks, which repeats each pixel and"
        " then convolves.",
        (*SQUARES, "decoder.type=residual", "decoder.widths=[48, 32, 16, 8]"),
    ),
    "falling_kl_300": Design(
        "As `kl_300`, with learning rates that fall to a hundredth by a cosine.",
        (*KL_300, *FALLING),
    ),
    "augmented_falling_kl_300": Design(
        "As `falling_kl_300`, with flips and rotations of all inputs of the discriminator.",
        (*KL_300, *FALLING, AUGMENTED),
    ),
    "quickstart": Design(
        "The recipe `quickstart`: as `kl_300`, with flips and rotations of all inputs of the"
        " discriminator, in 1,200 steps.",
        QUICKSTART,
        0.8436,
    ),
    "middle_kl_300": Design("As `kl_300`, with widths of 32, 64, 128, 128.", (*KL_300, *MIDDLE)),
    "quarter": Design("As `kl_300`, for a quarter of the time.", KL_300, 1 / 4),
    "eighth": Design("As `kl_300`, for an eighth of the time.", KL_300, 1 / 8),
    "sixteenth": Design("As `kl_300`, for a sixteenth of the time.", KL_300, 1 / 16),
}
