"""Latents from the prior that the loss `vamp-prior` has learned."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import vgx

if TYPE_CHECKING:
    from torch import Generator, Tensor


class VampPriorSampler(vgx.Sampler, type="vamp-prior"):
    """Draw from the prior of the loss `vamp-prior` (Tomczak and Welling 2018).

    A pseudo-input u_k, each with the same probability, then z ~ q(z | u_k).
    """

    needs_losses: ClassVar[bool] = True

    @property
    def least_codes(self) -> int:
        """0: it draws without the run's latents."""
        return 0

    def build(self, latent: vgx.LatentSpec) -> vgx.LatentSampler:
        """Return an object that draws [n, *Z]."""
        del latent
        return _Mixture()


class _Mixture:
    def use(self, model: vgx.Model) -> None:
        """Encode the pseudo-inputs. Raises `RecipeError` for a recipe without the loss."""
        from vgx_builtin.losses.vamp_prior_term import VampPriorTerm

        terms = [each for each in model.losses.values() if isinstance(each, VampPriorTerm)]
        if not terms:
            text = "the recipe has no loss vamp-prior, or was exported with another sampler"
            raise vgx.RecipeError(f"sampler vamp-prior: {text}; draw with gaussian-mixture")
        posterior = terms[0].mixture(model.posterior)
        self.mu = posterior.mu.detach().cpu()  # [K, *Z]
        self.sigma = (posterior.logvar.detach() / 2).exp().cpu()  # [K, *Z]

    def draw(self, n: int, codes: Tensor, generator: Generator) -> Tensor:
        """[n, *Z]  Rows are drawn one after another, so that none depends on `n`."""
        import torch

        rows = []
        for _ in range(n):
            k = int(torch.randint(len(self.mu), (), generator=generator))
            noise = torch.randn(self.mu.shape[1:], generator=generator)
            rows.append(self.mu[k] + self.sigma[k] * noise.to(self.sigma))
        return torch.stack(rows).to(codes)
