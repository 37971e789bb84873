"""What the gallery trains: recipes at 64 pixels and for more steps than their files say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

FACES = "dataset.fallback.count=8000"
AT_64 = ("image.size=64", FACES)
DECODER = "decoder.widths=[256, 128, 64, 32]"
JUDGE = "discriminator.widths=[32, 64, 128, 256]"
VAE = (*AT_64, "encoder.widths=[32, 64, 128, 256]", DECODER)
POINT = (*AT_64, "encoder.inner.widths=[32, 64, 128, 256]", DECODER)
GAN = (*AT_64, DECODER, JUDGE)
LEARNED = (
    "encoder.normalised=false", "encoder.codes=2048", "prior=null", "sampler=aggregate-gaussian",
)  # fmt: skip
MOVING = (*LEARNED, "encoder.decay=0.99")
SMALL_GAN = (
    "decoder.widths=[128, 64, 32]", "discriminator.widths=[32, 64, 128]", "discriminator.norm=none",
)  # fmt: skip
FASTER = ("train.optimizers.generator.lr=0.001", "train.optimizers.discriminator.lr=0.001")
LABELLED = ("image.size=64", "dataset.count=8000")
KL_32 = (
    "image.size=32", "latent=[4, 8, 8]", "encoder.widths=[16, 32, 64]", "encoder.groups=8",
    "decoder.widths=[64, 32, 16]", "decoder.groups=8", "encoder.recompute=false",
    "decoder.recompute=false", "train.batch=16", "train.ema=0.99",
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One training."""

    steps: int
    settings: tuple[str, ...] = ()  # besides the steps, what differs from the recipe
    prior: int = 0  # steps of the second stage
    recipe: str = ""  # whose section it is in; its own if it is empty
    what: str = ""  # how it differs from the entry of that recipe
    why: str = ""  # for the page: what its reader must know
    base: str = ""  # the entry that is trained before it, whose exported model is BASE in settings

    def overrides(self, share: float = 1.0) -> list[str]:
        """Return the settings as for `--set`, with a share of the steps."""
        steps = {"train.steps": self.steps, "prior.steps": self.prior}
        counted = [f"{name}={max(round(share * n), 1)}" for name, n in steps.items() if n]
        return [*self.settings, *counted]


ENTRIES = {
    "vae": Entry(
        6000, VAE,
        why="Whole faces, soft; about a quarter have smeared eyes.",
    ),
    "beta_vae": Entry(
        6000, VAE,
        why="Each row changes one latent: the colour of the hair, the eyes and the background,"
        " and the length of the hair; most change two of them.",
    ),
    "infovae": Entry(
        6000, VAE,
        why="Whole faces, with noise in hair and background; eyes are often smeared.",
    ),
    "cvae": Entry(
        6000,
        (*LABELLED, "encoder.inner.widths=[32, 64, 128, 256]", f"decoder.inner.{DECODER[8:]}"),
        why="Faces of random classes: every hair style is there, and eyes are clear in most.",
    ),
    "iwae": Entry(
        6000, VAE,
        why="Whole faces with bows, glasses and closed eyes; more of the eyes are smeared than in"
        " `vae`.",
    ),
    "sigma_vae": Entry(
        6000,
        VAE,
        why="It was ended early: whole faces of all hair styles with clear eyes; about one in eight"
        " has smeared eyes, and hair and background are grainy. In an earlier training with more"
        " steps, images of N(0, I) were pale, with a Frechet distance of 34: latents hold much of"
        " an image here, and lie far from it.",
    ),
    "dip_vae": Entry(
        6000, VAE,
        why="The rows show colours of hair, skin and background and the hair style, mostly two"
        " at once.",
    ),
    "factor_vae": Entry(
        6000, VAE,
        why="Each row changes two things or more: the hair's colour in the first three, its style"
        " in the last three, and the background.",
    ),
    "vamp_prior": Entry(
        6000, VAE,
        why="It was ended early: hair, colours and skin are clear, and eyes are dark spots.",
    ),
    "hierarchical_vae": Entry(
        1800,
        ("encoder.widths=[16, 32, 64]", "decoder.widths=[64, 32, 16]", "train.batch=32"),
        why="About a fifth of the faces have no clear eyes yet.",
    ),
    "wae_mmd": Entry(
        6000, POINT,
        why="Most have clear eyes, and they are of many kinds (recall); some have noise.",
    ),
    "wae_gan": Entry(
        6000, POINT,
        why="Clear faces; about a third have eyes that are dark or smeared.",
    ),
    "aae": Entry(
        6000, POINT,
        why="Clear faces; about a third have eyes that are dark or smeared.",
    ),
    "soft_intro_vae": Entry(
        4000,
        why="It was ended early: faces of many colours with clear eyes, under noise of many"
        " colours.",
    ),
    "dcgan": Entry(
        8000,
        GAN,
        why="Clear faces, but of few kinds (recall): the discriminator is far ahead of the"
        " generator.",
    ),
    "dcgan_ada": Entry(
        2600,
        (*SMALL_GAN, "augment=[]", *FASTER),
        why="One training of each. Without ADA the discriminator takes all training images for"
        " real, but a third of the held-out ones for fake: it knows the training images by heart."
        " With ADA the Frechet distance is smaller and recall is larger (0.17, without 0.03), but"
        " precision (0.33, without 0.46) and coverage are smaller. Earlier trainings at 64 pixels,"
        " of fewer steps, with BatchNorm in the discriminator and rates of 2e-4, showed no gain.",
    ),
    "dcgan_ada.without": Entry(
        2600,
        (*SMALL_GAN, "augment=[]", *FASTER, "diff_augment=[]"),
        recipe="dcgan_ada",
        what="without ADA",
    ),
    "wgan_gp": Entry(
        400,
        why="Few steps: hair of many colours and heads that are faces, most of whose eyes and"
        " mouths are blurred.",
    ),
    "sngan_hinge": Entry(
        1500,
        why="After so few steps there are faces with hair of many colours, most with two eyes, and"
        " mouths that are smeared; all of one kind, with short hair (recall), under noise.",
    ),
    "r3gan": Entry(
        1500,
        why="Faces with long and short hair and strong colours, most with two eyes, under noise of"
        " many colours. Its recall is larger than that of `sngan_hinge` and `unet_gan`, whose faces"
        " are of one kind.",
    ),
    "infogan": Entry(
        3000,
        (*SMALL_GAN, *FASTER),
        why="The encoder learns to find 8 latents and none of the noise, so reconstructions are not"
        " their images. Each row changes one of the 8; the colour of the hair is in all that are"
        " shown.",
    ),
    "stylegan2_ada": Entry(
        5000,
        (
            "image.size=32", "latent=64", "decoder.widths=[64, 64, 64, 32]", "decoder.styles=64",
            "discriminator.widths=[32, 64, 64, 64]", "diff_augment.0.thousands=20",
            "train.batch=16",
        ),
        why="Clear faces in many colours, nearly all with short hair: recall is 0.0005. Truncation"
        " (psi 0.7) makes them more alike. After 2,000 steps the Frechet distance was 6.7.",
    ),
    "biggan": Entry(
        1500,
        why="Each column is one latent: its class changes the hair style, and the colours stay. All"
        " faces look alike but for hair and colours, so recall is 0.002.",
    ),
    "projected_gan": Entry(
        1500,
        (
            "image.size=32", "decoder.widths=[64, 64, 32]", "discriminator.size=64",
            "discriminator.width=16", "train.batch=16",
        ),
        why="Colours, hair and faces of many kinds, but few clear eyes: recall is 0.19, precision"
        " 0.22.",
    ),
    "unet_gan": Entry(
        4000,
        (
            "image.size=32", "decoder.widths=[64, 64, 32]", "discriminator.widths=[16, 32, 64]",
            "train.batch=16", "train.optimizers.generator.lr=0.0005",
            "train.optimizers.discriminator.lr=0.0005",
        ),
        why="It was ended early: faces with hair of many colours and clear eyes, under fine"
        " stripes. They are of one kind, with short hair (recall), and in many one eye is hidden by"
        " it.",
    ),
    "bigan": Entry(
        10000,
        (*VAE, JUDGE),
        why="It was ended early: eyes and hair are there, under noise of many colours, and the"
        " faces are of few kinds (recall).",
    ),
    "alpha_gan": Entry(
        6000,
        (*POINT, "discriminators.image.widths=[32, 64, 128, 256]"),
        why="It was ended early: faces of many kinds (recall), with noise of many colours.",
    ),
    "larsen_vaegan": Entry(
        6000, (*VAE, JUDGE), why="It was ended early: a pattern of dots covers the faces."
    ),
    "vqvae": Entry(
        2000,
        prior=2000,
        why="The transformer draws whole, soft faces; before it, places of the grid did not fit"
        " together.",
    ),
    "vqvae.learned": Entry(
        800,
        LEARNED,
        recipe="vqvae",
        what="learned by gradients",
        why="The codebook collapses: 54 of 2,048 codes are used, and the faces are blurred. Images"
        " of these three are drawn without a prior.",
    ),
    "vqvae.restart": Entry(
        800,
        MOVING,
        recipe="vqvae",
        what="moving averages with restart",
        why="All codes are used, most of them evenly (perplexity).",
    ),
    "vqvae.without": Entry(
        800,
        (*MOVING, "encoder.restart=0"),
        recipe="vqvae",
        what="moving averages, no restart",
        why="Since k-means starts the codes, few of them die; they are used less evenly.",
    ),
    "vqgan": Entry(
        2000,
        prior=2000,
        why="It was ended early: sharper than `vqvae`, and about half of the faces have eyes of"
        " single wrong pixels.",
    ),
    "fsq_autoencoder": Entry(
        700,
        prior=1000,
        why="Few steps: hair and colours are right, faces are blurred, and about a third are"
        " broken.",
    ),
    "residual_autoencoder": Entry(
        2000,
        prior=2000,
        why="The transformer draws cleaner faces, of more of the held-out kinds (precision and"
        " coverage), but they differ less from each other (recall), and the Frechet distance hardly"
        " changes.",
    ),
    "kl_autoencoder": Entry(
        1600,
        prior=2000,
        why="After its prior the Frechet distance is a third smaller, and more of the images are"
        " near to held-out faces (precision 0.61, before 0.18; coverage 0.73, before 0.31), but"
        " they differ less from each other (recall).",
    ),
    "eq_vae": Entry(
        1600,
        prior=2000,
        why="After its prior more of the images are near to held-out faces (precision 0.46, before"
        " 0.14; coverage 0.59, before 0.26); the Frechet distance hardly changes. All three are"
        " better for `kl_autoencoder` with its prior, so what the paper gains does not show in so"
        " short a training.",
    ),
    "tiny_autoencoder": Entry(
        1000, why="After so few steps the forms and the colours are right, and eyes are spots."
    ),
    "finetune_autoencoder": Entry(
        800,
        (*KL_32, "start.run=BASE", "train.optimizers.generator.lr=0.0005"),
        base="finetune_autoencoder.base",
        why="No published autoencoder could be fetched, so it starts from BASE, the exported folder"
        " of the one below, which has seen no face.",
    ),
    "finetune_autoencoder.base": Entry(
        800,
        (*KL_32, "start=null", "dataset.path=PHOTOGRAPHS", "train.optimizers.generator.lr=0.001"),
        recipe="finetune_autoencoder",
        what="before fine-tuning",
        why="PHOTOGRAPHS has 2,000 crops of the two photographs of scikit-learn.",
    ),
}  # fmt: skip


def of_recipe(recipe: str, names: Iterable[str] = ENTRIES) -> list[str]:
    """Return the entries in the section of a recipe, its own first."""
    return [name for name in names if recipe in (name, ENTRIES[name].recipe)]
