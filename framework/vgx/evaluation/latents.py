"""Metrics of latents: how much they hold, how near the prior they are, how factors appear in them.

Letters: N images, D latent dimensions, K factors.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, repeat

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vgx import rng
from vgx.distributed.pieces import Piece
from vgx.parts.kinds import Indexed, Quantising
from vgx.step import Gaussian, KnowsKl, Posterior

ACTIVE = 0.01  # the variance of mu from which a dimension is active (Burda et al. 2016)
RIDGE = 1.0  # penalty of the linear readouts, for latents of variance 1
TRAINED = 0.8  # share of the images that a readout is trained on
FEWEST = 10  # images with known factors: a readout is tested on two of them
BINS = 20  # of a latent, and of a quantity with more values than that
PRIOR = 2048  # latents that are compared with the prior, at most

Rows = NDArray[np.float64]
Classes = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Latents:
    """The posteriors of N images."""

    mean: Tensor  # [N, D]
    logvar: Tensor | None = None  # [N, D]  if they are Gaussians
    indices: Tensor | None = None  # [N*P, levels]  if they are vectors of a codebook
    codes: int = 0  # values that an index can have
    # Of posteriors that are no Gaussians but know their KL: a sample of each, and the KL with it.
    drawn: Tensor | None = None  # [N, D]
    kl: Tensor | None = None  # [N, D]  nats

    @staticmethod
    def of(posteriors: Sequence[Posterior], encoder: nn.Module | None = None) -> Latents:
        """Gather the posteriors of minibatches."""
        return Latents.joined([*map(numbers_of, posteriors, count(), repeat(encoder))], encoder)

    @staticmethod
    def joined(pieces: Sequence[Piece], encoder: nn.Module | None) -> Latents:
        """Join what `numbers_of` gives of each minibatch."""
        joined = {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}
        return Latents(**joined, codes=encoder.codes if isinstance(encoder, Quantising) else 0)


def numbers_of(posterior: Posterior, number: int, encoder: nn.Module | None) -> Piece:
    """Return the numbers of the posteriors [N, *Z] of a minibatch, in float64 on the CPU.

    The sample of each is drawn with the number of the minibatch.
    """

    def flat(tensor: Tensor) -> Tensor:
        return tensor.flatten(1).double().cpu()  # [N, D]

    numbers = {"mean": flat(posterior.mean)}
    if isinstance(posterior, Gaussian):
        numbers["logvar"] = flat(posterior.logvar)
    if isinstance(encoder, Quantising) and isinstance(posterior, Indexed):
        numbers["indices"] = by_level(posterior.indices, posterior.mean.dim()).cpu()
    elif isinstance(posterior, KnowsKl) and not isinstance(posterior, Gaussian):
        device = posterior.mean.device
        generator = rng.generator(0, "evaluation posterior", number, device=device)
        numbers["drawn"] = flat(posterior.sample(generator))
        numbers["kl"] = flat(posterior.kl())  # with this sample
    return numbers


def by_level(indices: Tensor, dims: int) -> Tensor:
    """[B*P, levels]  The indices of all places, of latents [B, *Z] with so many dimensions."""
    return indices.flatten(0, -2) if indices.dim() == dims else indices.flatten()[:, None]


def codebook_metrics(indices: Tensor, codes: int) -> dict[str, float]:
    """Return how much of a codebook indices [N, levels] from 0 to `codes` - 1 use.

    `codebook_usage`: the share of the codes that occur. `perplexity`: exp of the entropy of how
    often each occurs, from 1 (always the same code) to `codes` (all equally often). Of several
    levels they are means.
    """
    usage, perplexity = list[float](), list[float]()
    for level in indices.cpu().numpy().T:
        counts = np.unique(level, return_counts=True)[1]
        share = counts / counts.sum()
        usage.append(len(counts) / codes)
        perplexity.append(float(np.exp(-(share * np.log(share)).sum())))
    return {"codebook_usage": float(np.mean(usage)), "perplexity": float(np.mean(perplexity))}


def kl_by_dimension(latents: Latents) -> list[float]:
    """Return KL(q(z|x) || N(0, I)) of each dimension in nats, mean over images: [D] numbers.

    The list is empty when the posteriors do not know it.
    """
    if latents.kl is not None:
        own: list[float] = latents.kl.mean(0).tolist()
        return own
    if latents.logvar is None:
        return []
    values: list[float] = Gaussian(latents.mean, latents.logvar).kl().mean(0).tolist()
    return values


def active_dimensions(means: Tensor) -> Tensor:
    """[D]  Return whether each dimension of posterior means [N, D] is active.

    It is active when its unbiased variance over images is above 0.01 (Burda et al. 2016).
    """
    return means.var(0) > ACTIVE


def latent_metrics(latents: Latents, seed: int) -> dict[str, float]:
    """Return the metrics that need nothing but the latents.

    `kl`: nats, sum over dimensions. `prior_gap`: max(kl - log N, 0), a lower bound, in nats, of the
    KL of the aggregate posterior of these N images from the prior; `kl` is the sum of that KL and
    of the mutual information of latent and image, which is at most log N (Hoffman and Johnson 2016,
    eq. 7). `active_units`: the number of dimensions in which the variance of mu is above 0.01.
    `marginal_kl`: the sum over dimensions of KL(N(m, s^2) || N(0, 1)) in nats, where m and s^2 are
    the mean and variance of posterior samples z. `mmd`: the unbiased MMD^2 between posterior
    samples and the prior, with the kernel C / (C + |x - y|^2), C = 2 D (Tolstikhin et al. 2018).
    The last three need two images. For those of `codebook_metrics`, latents are of a codebook.
    """
    mean = latents.mean
    values: dict[str, float] = {}
    if latents.indices is not None:
        values |= codebook_metrics(latents.indices, latents.codes)
    z = mean
    if kl := kl_by_dimension(latents):
        values["kl"] = sum(kl)
        values["prior_gap"] = max(values["kl"] - math.log(len(mean)), 0.0)
    if latents.drawn is not None:
        z = latents.drawn
    if latents.logvar is not None:
        z = _sample(mean, latents.logvar, seed)
    if len(z) > 1:
        values["active_units"] = float(active_dimensions(mean).sum())
        variance = z.var(0, unbiased=False).clamp(min=1e-12)
        values["marginal_kl"] = ((z.mean(0) ** 2 + variance - 1 - variance.log()) / 2).sum().item()
        values["mmd"] = _mmd(z[:PRIOR], seed)
    return values


def _sample(mean: Tensor, logvar: Tensor, seed: int) -> Tensor:
    """[N, D]  Draw one sample of each posterior."""
    generator = rng.generator(seed, "evaluation posterior")
    return mean + (logvar / 2).exp() * torch.randn(mean.shape, generator=generator).double()


def _mmd(z: Tensor, seed: int) -> float:
    prior = torch.randn(z.shape, generator=rng.generator(seed, "evaluation prior")).double()
    scale, n = 2 * z.shape[1], len(z)

    def kernel_sum(a: Tensor, b: Tensor) -> Tensor:
        return (scale / (scale + torch.cdist(a, b).square())).sum()

    within = (kernel_sum(z, z) + kernel_sum(prior, prior) - 2 * n) / (n * (n - 1))
    return (within - 2 * kernel_sum(z, prior) / n**2).item()


def factor_metrics(
    latents: Latents, factors: dict[str, list[float]], seed: int
) -> dict[str, float]:
    """Return how the posterior means depend on known factors.

    Each factor has N values: numbers of a quantity, or ints of a class. Factors that never change
    are left out, and values that too few images, latents or factors leave undefined.

    `readout_r2`: R^2 of a ridge regression from mu to each quantity on test images, at least 0,
    mean over quantities. `readout_accuracy`: balanced accuracy of a logistic regression on test
    images, mean over classes, then over factors (chance is 1 over the number of classes).
    `disentanglement` and `completeness`: how far each active latent depends on one factor, and each
    factor on one active latent, from the weights of a lasso (Eastwood and Williams 2018, eq. 2 and
    3; their lasso is cross-validated); a factor of classes has one column for each class, and the
    mean over these counts. `mig`: the difference between the largest and the second largest mutual
    information of a factor with a latent, over the factor's entropy, mean over factors (Chen et al.
    2018, eq. 6), where latents are cut into 20 bins of equal width (Locatello et al. 2019).
    """
    quantities, classes = split_factors(factors)
    means = latents.mean.numpy()
    changing = np.ptp(means, 0) > 0  # [D]
    if len(means) < FEWEST or not (quantities or classes) or not changing.any():
        return {}
    # Latents without a KL from N(0, I) have no scale by which a variance would be small.
    scaled = latents.logvar is not None or latents.kl is not None
    active = active_dimensions(latents.mean).numpy() if scaled else changing
    one_hot = [np.eye(column.max() + 1)[column] for column in classes]  # [N, classes] each
    columns = [column[:, None] for column in quantities] + one_hot
    values = _importance(means[:, active], columns) if active.any() else {}
    means = means[:, changing]
    if means.shape[1] > 1:
        values["mig"] = mutual_information_gap(means, [*map(as_classes, quantities), *classes])
    if quantities:
        values["readout_r2"] = _readout_r2(means, np.stack(quantities, 1), seed)
    if classes:
        values["readout_accuracy"] = _readout_accuracy(means, classes, seed)
    return values


def split_factors(factors: dict[str, list[float]]) -> tuple[list[Rows], list[Classes]]:
    """Return the factors that change: quantities, and classes numbered from 0, each [N]."""
    quantities, classes = [], []
    for column in factors.values():
        if min(column) == max(column):
            continue
        if all(isinstance(value, int | np.integer | np.bool_) for value in column):
            classes.append(np.unique(column, return_inverse=True)[1].astype(np.int64))
        else:
            quantities.append(np.array(column))
    return quantities, classes


def _standardized(rows: Rows) -> Rows:
    scaled: Rows = (rows - rows.mean(0)) / rows.std(0)
    return scaled


def _train_test(n: int, seed: int) -> list[NDArray[np.int64]]:
    """Return the numbers of the images that a readout is trained on, and of the test images."""
    order = torch.randperm(n, generator=rng.generator(seed, "evaluation split")).numpy()
    return np.split(order, [int(TRAINED * n)])


def _readout_r2(means: Rows, quantities: Rows, seed: int) -> float:
    from sklearn.linear_model import Ridge
    from sklearn.metrics import r2_score

    train, test = _train_test(len(means), seed)
    x, y = _standardized(means), _standardized(quantities)
    predicted = Ridge(RIDGE).fit(x[train], y[train]).predict(x[test])
    scores = r2_score(y[test], predicted.reshape(y[test].shape), multioutput="raw_values")
    return float(np.clip(scores, 0, 1).mean())


def _readout_accuracy(means: Rows, classes: list[Classes], seed: int) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score

    train, test = _train_test(len(means), seed)
    x, scores = _standardized(means), []
    for y in classes:
        predicted = np.full(len(test), y[train[0]])  # the training images may have one class only
        with warnings.catch_warnings():
            # Not quite converged is near enough, and a class may have no test images.
            warnings.simplefilter("ignore")
            if np.ptp(y[train]):
                model = LogisticRegression(C=1 / RIDGE, max_iter=1000).fit(x[train], y[train])
                predicted = model.predict(x[test])
            scores.append(balanced_accuracy_score(y[test], predicted))
    return float(np.mean(scores))


def _importance(means: Rows, factors: list[Rows]) -> dict[str, float]:
    """Return disentanglement and completeness of means [N, D], each factor the columns [N, any].

    They are left out for a single factor and a single latent, which nothing can be mixed with. The
    penalty keeps the weight of a latent that is independent of a factor at 0: with N images their
    correlation is about 1 / sqrt(N), and the largest of D such ones sqrt(2 log(D) / N).
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import Lasso

    n, d = means.shape
    penalty = math.sqrt(2 * math.log(max(d, 2)) / n)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # an approximate weight is enough
        model = Lasso(penalty).fit(_standardized(means), _standardized(np.hstack(factors)))
    of_columns = np.abs(model.coef_).reshape(-1, d)  # [columns, D]
    ends = np.cumsum([columns.shape[1] for columns in factors])[:-1]
    weights = np.stack([part.mean(0) for part in np.split(of_columns, ends)], 1)  # [D, K]
    share = weights / (weights.sum() or 1.0)
    values = {}
    if weights.shape[1] > 1:
        values["disentanglement"] = float((share.sum(1) * purity(weights)).sum())
    if d > 1:
        values["completeness"] = float((share.sum(0) * purity(weights.T)).sum())
    return values


def purity(weights: Rows) -> Rows:
    """[R]  Return 1 - entropy of each row, to the base of its length >= 2; 0 for a row of zeros."""
    total = weights.sum(1, keepdims=True)
    shares = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    entropy: Rows = -(shares * logs).sum(1) / math.log(weights.shape[1])
    return np.where(total[:, 0] > 0, 1 - entropy, 0.0)


def mutual_information_gap(means: Rows, factors: list[Classes]) -> float:
    """Return the MIG of means [N, D], at least two of them, and factors that are classes [N]."""
    latents = [(column, _entropy(column)) for column in map(binned, means.T)]
    gaps = []
    for factor in factors:
        own = _entropy(factor)
        # I(a; b) = H(a) + H(b) - H(a, b); much faster than scikit-learn's mutual_info_score.
        shared = [own + other - _entropy(factor * BINS + latent) for latent, other in latents]
        first, second, *_ = sorted(shared, reverse=True)
        gaps.append((first - second) / own)
    return float(np.mean(gaps))


def _entropy(column: Classes) -> float:
    """Return the entropy of classes from 0 on, in nats."""
    counts = np.bincount(column)
    shares = counts[counts > 0] / len(column)
    return -float((shares * np.log(shares)).sum())


def as_classes(quantity: Rows) -> Classes:
    """[N]  Return the class of each number: its bin, or the number if there are at most `BINS`."""
    distinct, index = np.unique(quantity, return_inverse=True)
    return index.astype(np.int64) if len(distinct) <= BINS else binned(quantity)


def binned(column: Rows) -> Classes:
    """[N]  Return the bin of each number, from 0 on: one of `BINS` of equal width."""
    edges = np.linspace(column.min(), column.max(), BINS + 1)[:-1]
    return np.digitize(column, edges).astype(np.int64) - 1
