"""Measurements of latents: how much they carry, how near the prior they lie, what they mean.

Letters: N pictures, D latent dimensions, K factors.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vgx import rng
from vgx.step import Gaussian

ACTIVE = 0.01  # the variance of mu from which a dimension is active (Burda et al. 2016)
RIDGE = 1.0  # penalty of the linear readouts, latents having variance 1
LASSO = 0.01  # penalty of the weights that say which latents a factor needs
TRAINED = 0.8  # share of the pictures that the readout learns from
BINS = 20  # of a latent, and of a quantity with more values than that (Locatello et al. 2019)
PRIOR = 2048  # the most latents whose distances to the prior are taken

Rows = NDArray[np.float64]
Classes = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Latents:
    """The posteriors of N pictures."""

    mean: Tensor  # [N, D]
    logvar: Tensor | None  # [N, D]  when they are Gaussians

    @staticmethod
    def of(posteriors: list[object]) -> Latents:
        """Gather the posteriors of minibatches, in float64 on the CPU."""
        flat = [p.mean.flatten(1).double().cpu() for p in posteriors]  # type: ignore[attr-defined]
        spread = [p.logvar.flatten(1).double().cpu() for p in posteriors if isinstance(p, Gaussian)]
        return Latents(torch.cat(flat), torch.cat(spread) if spread else None)


def kl_by_dimension(latents: Latents) -> list[float]:
    """Return KL(q(z|x) || N(0, I)) of each dimension in nats, mean over pictures; [D] numbers."""
    if latents.logvar is None:
        return []
    mean, logvar = latents.mean, latents.logvar
    values: list[float] = ((mean.square() + logvar.exp() - 1 - logvar) / 2).mean(0).tolist()
    return values


def active_dimensions(means: Tensor) -> Tensor:
    """[D]  Whether each dimension of posterior means [N, D] is active (Burda et al. 2016).

    It is when the unbiased variance over images is above 0.01.
    """
    return means.var(0) > ACTIVE


def gap_at_least(kl: float, n: int) -> float:
    """Return how far, in nats, the aggregate posterior of n pictures is from the prior at least.

    The mean KL of their posteriors is that gap, and what a latent tells of which picture it is of,
    which is log n at most (Hoffman and Johnson 2016, eq. 7).
    """
    return max(kl - math.log(n), 0.0)


def figures(latents: Latents, seed: int) -> dict[str, float]:
    """Return what latents say by themselves.

    `kl`: nats, sum over dimensions. `prior_gap`: by how much the aggregate posterior of these
    pictures differs from the prior at least, in nats. `active_units`: dimensions in which mu varies
    by more than 0.01. `marginal_kl`: the aggregate posterior's distance from the prior, sum over
    dimensions of KL(N(m, s^2) || N(0, 1)) in nats, of posterior samples z. `mmd`: the same distance
    as an unbiased MMD^2 with the kernel C / (C + |x - y|^2), C = 2 D (Tolstikhin et al. 2018).
    """
    mean = latents.mean
    found = {"active_units": float(active_dimensions(mean).sum())}
    z = mean
    if latents.logvar is not None:
        found["kl"] = sum(kl_by_dimension(latents))
        found["prior_gap"] = gap_at_least(found["kl"], len(mean))
        z = _draw(mean, latents.logvar, seed)
    variance = z.var(0, unbiased=False).clamp(min=1e-12)
    found["marginal_kl"] = ((z.mean(0) ** 2 + variance - 1 - variance.log()) / 2).sum().item()
    found["mmd"] = _mmd(z[:PRIOR], seed)
    return found


def _draw(mean: Tensor, logvar: Tensor, seed: int) -> Tensor:
    """[N, D]  One sample of each posterior."""
    chance = rng.generator(seed, "evaluation posterior")
    return mean + (logvar / 2).exp() * torch.randn(mean.shape, generator=chance).double()


def _mmd(z: Tensor, seed: int) -> float:
    prior = torch.randn(z.shape, generator=rng.generator(seed, "evaluation prior")).double()
    scale, n = 2 * z.shape[1], len(z)

    def similar(a: Tensor, b: Tensor) -> Tensor:
        return (scale / (scale + torch.cdist(a, b).square())).sum()

    apart = (similar(z, z) + similar(prior, prior) - 2 * n) / (n * (n - 1))
    return (apart - 2 * similar(z, prior) / n**2).item()


def of_factors(latents: Latents, factors: dict[str, list[float]], seed: int) -> dict[str, float]:
    """Return what the means say of known factors, N values each: quantities, or ints for classes.

    `readout_r2`: R^2 of a ridge regression from mu to each quantity on pictures that it did not
    learn from, not below 0, mean over quantities. `readout_accuracy`: share of each class that a
    logistic regression tells on those pictures, mean over classes, then over factors (1 over the
    number of classes is chance). `disentanglement` and `completeness`: how far each latent serves
    one factor, and each factor needs one latent, from the weights of a lasso, for classes their
    mean over columns that are 1 in one class (Eastwood and Williams 2018, eq. 2 and 3). `mig`: the
    gap in mutual information between the latent that says most of a factor and the next, over the
    factor's entropy, mean over factors (Chen et al. 2018, eq. 6). Factors that never change are
    left out.
    """
    quantities, classes = _kinds(factors)
    means = latents.mean.numpy()
    means = means[:, np.ptp(means, 0) > 0]  # [N, D]
    if not (quantities or classes) or not means.size:
        return {}
    found = _importance(means, [column[:, None] for column in quantities] + _told_apart(classes))
    found["mig"] = _mig(means, [_binned(column) for column in quantities] + classes)
    if quantities:
        found["readout_r2"] = _read(means, np.stack(quantities, 1), seed)
    if classes:
        found["readout_accuracy"] = _recognised(means, classes, seed)
    return found


def _kinds(factors: dict[str, list[float]]) -> tuple[list[Rows], list[Classes]]:
    """Return the factors that change: quantities, and classes numbered from 0, each [N]."""
    quantities, classes = [], []
    for column in factors.values():
        if min(column) == max(column):
            continue
        if all(isinstance(value, int) for value in column):
            classes.append(np.unique(column, return_inverse=True)[1].astype(np.int64))
        else:
            quantities.append(np.array(column))
    return quantities, classes


def _told_apart(classes: list[Classes]) -> list[Rows]:
    """Return a column for each class of each factor, 1 where a picture is of it."""
    return [np.eye(column.max() + 1)[column] for column in classes]


def _standard(rows: Rows) -> Rows:
    scaled: Rows = (rows - rows.mean(0)) / rows.std(0)
    return scaled


def _split(n: int, seed: int) -> list[NDArray[np.int64]]:
    """Return the pictures that a readout learns from, and those that it is asked about."""
    order = torch.randperm(n, generator=rng.generator(seed, "evaluation split")).numpy()
    return np.split(order, [int(TRAINED * n)])


def _read(means: Rows, quantities: Rows, seed: int) -> float:
    from sklearn.linear_model import Ridge
    from sklearn.metrics import r2_score

    known, asked = _split(len(means), seed)
    x, y = _standard(means), _standard(quantities)
    told = Ridge(RIDGE).fit(x[known], y[known]).predict(x[asked])
    scores = r2_score(y[asked], told.reshape(y[asked].shape), multioutput="raw_values")
    return float(np.clip(scores, 0, 1).mean())


def _recognised(means: Rows, classes: list[Classes], seed: int) -> float:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    known, asked = _split(len(means), seed)
    x, scores = _standard(means), []
    for column in classes:
        told = np.full(len(asked), column[known[0]])  # all that can be learned of a single class
        if np.ptp(column[known]):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                fitted = LogisticRegression(C=1 / RIDGE, max_iter=1000).fit(x[known], column[known])
            told = fitted.predict(x[asked])
        right = told == column[asked]
        scores.append(np.mean([right[column[asked] == c].mean() for c in np.unique(column[asked])]))
    return float(np.mean(scores))


def _importance(means: Rows, factors: list[Rows]) -> dict[str, float]:
    """Return both figures of K factors, each the columns [N, any] that stand for it."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import Lasso

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a weight near enough is one
        fitted = Lasso(LASSO).fit(_standard(means), _standard(np.hstack(factors)))
    needed = np.abs(fitted.coef_).reshape(-1, means.shape[1])  # [columns, D]
    ends = np.cumsum([columns.shape[1] for columns in factors])[:-1]
    weights = np.stack([part.mean(0) for part in np.split(needed, ends)], 1)  # [D, K]
    if not weights.any():
        return {"disentanglement": 0.0, "completeness": 0.0}
    share = weights / weights.sum()
    return {
        "disentanglement": float((share.sum(1) * _purity(weights)).sum()),
        "completeness": float((share.sum(0) * _purity(weights.T)).sum()),
    }


def _purity(weights: Rows) -> Rows:
    """[R]  1 - entropy of each row, to the base of its length; 0 of a row without weight."""
    total = weights.sum(1, keepdims=True)
    shares = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    entropy: Rows = -(shares * logs).sum(1) / math.log(max(weights.shape[1], 2))
    return np.where(total[:, 0] > 0, 1 - entropy, 0.0)


def _mig(means: Rows, factors: list[Classes]) -> float:
    latents = [(column, _entropy(column)) for column in map(_binned, means.T)]
    gaps = []
    for factor in factors:
        own = _entropy(factor)
        said = [own + other - _entropy(factor * BINS + latent) for latent, other in latents]
        first, second, *_ = *sorted(said, reverse=True), 0.0
        gaps.append((first - second) / own)
    return float(np.mean(gaps))


def _entropy(column: Classes) -> float:
    """Return the entropy of classes from 0 on, in nats."""
    counts = np.bincount(column)
    shares = counts[counts > 0] / len(column)
    return -float((shares * np.log(shares)).sum())


def _binned(column: Rows) -> Classes:
    """[N]  Which of at most `BINS` bins each number is in; bins hold as many numbers each."""
    distinct, index = np.unique(column, return_inverse=True)
    if len(distinct) <= BINS:
        return index.astype(np.int64)
    edges = np.quantile(column, np.linspace(0, 1, BINS + 1)[1:-1])
    return np.searchsorted(edges, column, side="right").astype(np.int64)
