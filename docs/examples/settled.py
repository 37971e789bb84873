"""A sampler that uses the trained encoder and decoder."""

import torch
import vgx


class Settled(vgx.Sampler, type="settled"):
    """Of two draws from N(0, I), take the one that the encoder finds again in its image.

    The distance is that between the latent and the posterior mean of the decoded latent.
    """

    @property
    def least_codes(self):
        return 0

    def build(self, latent: vgx.LatentSpec):
        return _Settled(latent)


class _Settled:
    def __init__(self, latent: vgx.LatentSpec):
        self.latent = latent

    def use(self, model: vgx.Model):
        if model.encoder is None:
            raise vgx.RecipeError("sampler settled: the recipe has no encoder")
        self.model = model

    def draw(self, n: int, codes: torch.Tensor, generator: torch.Generator):
        pairs = [torch.randn(2, *self.latent.shape, generator=generator) for _ in range(n)]
        z = torch.cat(pairs)  # [2n, *Z]
        again = self.model.encode(self.model.decode(z)).cpu()  # [2n, *Z]
        nearer = (again - z).flatten(1).norm(dim=1).view(n, 2).argmin(1)  # [n]
        return z.view(n, 2, *self.latent.shape)[torch.arange(n), nearer].to(codes)


@vgx.hookimpl
def register_components(register):
    register(Settled)
