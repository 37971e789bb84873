"""Densities that are fitted to the latents of a run, and drawn from instead of the prior."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

import vgx

if TYPE_CHECKING:
    from torch import Generator, Tensor


class AggregateGaussian(vgx.Sampler, type="aggregate-gaussian"):
    """Draw from the Gaussian that has the mean and the covariance of the run's stored latents.

    z ~ N(m, S) with a full S. The latents of a VAE taken together, its aggregate posterior, are
    rarely N(0, I); this is the Gaussian nearest to them (Ghosh et al. 2020, with one component). It
    is fitted to latents of all labels, so a label says nothing about the latent drawn with it.
    """

    def build(self, latent: vgx.LatentSpec) -> vgx.LatentSampler:
        """Return a density to fit to the stored latents, which then draws [n, *Z]."""
        return FittedMixture(latent, _moments)


class GaussianMixture(vgx.Sampler, type="gaussian-mixture"):
    """Draw from a mixture of Gaussians that is fitted to the run's stored latents.

    z ~ sum_k w_k N(m_k, S_k), fitted by expectation-maximisation with scikit-learn's
    GaussianMixture: density estimation after the training (Ghosh et al. 2020), which lets even an
    autoencoder without a prior generate. It is fitted to latents of all labels, so a label says
    nothing about the latent drawn with it.
    """

    components: PositiveInt = 10
    """Number of Gaussians; the run must have at least as many latents."""
    covariance: Literal["full", "diag"] = "full"
    """`full`: any covariance for each Gaussian; `diag`: no covariance between dimensions, for few
    latents of many dimensions."""
    seed: Annotated[NonNegativeInt, Field(lt=2**32)] = 0
    """The seed of the fit's first values."""

    def build(self, latent: vgx.LatentSpec) -> vgx.LatentSampler:
        """Return a density to fit to the stored latents, which then draws [n, *Z]."""
        return FittedMixture(latent, self._fitted)

    def _fitted(self, flat: Tensor) -> dict[str, Tensor]:
        """Return weights [M], means [M, D] and factors, [M, D, D] or [M, D], for flat [K, D]."""
        import torch
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture as Mixture

        if len(flat) < max(self.components, 2):
            message = f"components: {self.components}: the run has {len(flat)} latents"
            raise vgx.RecipeError(f"sampler gaussian-mixture: {message}")
        mixture = Mixture(self.components, covariance_type=self.covariance, random_state=self.seed)
        with warnings.catch_warnings():
            # A fit that has not quite converged is as good a mixture.
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture.fit(flat.numpy())
        spread = torch.from_numpy(mixture.covariances_)
        return {
            "weights": torch.from_numpy(mixture.weights_),
            "means": torch.from_numpy(mixture.means_),
            "factors": torch.linalg.cholesky(spread) if spread.ndim == 3 else spread.sqrt(),
        }


def _moments(flat: Tensor) -> dict[str, Tensor]:
    """Return one component for flat [K, D]: weights [1], means [1, D], factors [1, D, D]."""
    import torch

    if len(flat) < 2:
        message = f"the run has {len(flat)} latents, and a covariance needs two"
        raise vgx.RecipeError(f"sampler aggregate-gaussian: {message}")
    # Eigenvectors, since fewer latents than dimensions have a covariance without a Cholesky factor.
    values, vectors = torch.linalg.eigh(flat.T.cov().reshape(flat.shape[1], -1))  # [D], [D, D]
    factor = vectors * values.clamp(min=0).sqrt()
    return {"weights": flat.new_ones(1), "means": flat.mean(0)[None], "factors": factor[None]}


class FittedMixture:
    """Gaussians m_k + F_k e with e ~ N(0, I); F_k is a matrix, or a vector where it is diagonal."""

    def __init__(
        self, latent: vgx.LatentSpec, learn: Callable[[Tensor], dict[str, Tensor]]
    ) -> None:
        self.latent, self.learn = latent, learn
        self.state: dict[str, Tensor] = {}

    def fit(self, codes: Tensor) -> None:
        """Fit to stored latents `codes` [K, *Z], in float64."""
        self.state = self.learn(codes.flatten(1).double())

    def state_dict(self) -> dict[str, Tensor]:
        """Return the fitted weights, means and factors."""
        return self.state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore fitted weights, means and factors."""
        self.state = state

    def draw(self, n: int, codes: Tensor, generator: Generator) -> Tensor:
        """[n, *Z]  Rows are drawn one after another, so that none depends on `n`."""
        import torch

        weights, means, factors = (self.state[name] for name in ("weights", "means", "factors"))
        below = weights.cumsum(0)[:-1]  # [M - 1]
        rows = []
        for _ in range(n):
            uniform = torch.rand((), generator=generator, dtype=torch.float64)
            k = int(torch.searchsorted(below, uniform, right=True))
            noise = torch.randn(means.shape[1], generator=generator, dtype=torch.float64)
            offset = factors[k] @ noise if factors.ndim == 3 else factors[k] * noise  # [D]
            rows.append(means[k] + offset)
        return torch.stack(rows).reshape(n, *self.latent.shape).to(codes)
