"""Latents from the prior of the run's second stage.

Letters: n latents in all, Z the latent shape.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import PositiveFloat, PositiveInt

import vgx

if TYPE_CHECKING:
    from torch import Generator, Tensor

CHUNK = 64  # codes that are drawn at once


class LearnedPrior(vgx.Sampler, type="learned-prior"):
    """Draw with the prior that the run has learned in its second stage.

    The recipe's `prior` must be trained (`vgx run`, `vgx fit`). Until then the grids of the
    training show latents from N(0, I). A field that is not null is given to the prior, which must
    know it.
    """

    needs_prior: ClassVar[bool] = True

    temperature: PositiveFloat | None = None
    """Of `transformer`: logits are divided by it. Of `rectified-flow`: the noise is multiplied by
    it. Below 1, images are more alike and often cleaner. `null` is 1."""
    top_k: PositiveInt | None = None
    """Of `transformer`: draw each index from so many of the likeliest alone. `null`: from all."""
    steps: PositiveInt | None = None
    """Of `rectified-flow`: steps from noise to a latent. `null` is 50."""
    solver: Literal["euler", "heun"] | None = None
    """Of `rectified-flow`: one evaluation of the network in a step, or two. `null` is `heun`."""

    @property
    def least_codes(self) -> int:
        """0: it draws without the run's latents."""
        return 0

    def build(self, latent: vgx.LatentSpec) -> vgx.LatentSampler:
        """Return an object that draws [n, *Z]."""
        chosen = {name: getattr(self, name) for name in type(self).model_fields}
        return _Learned(latent, {name: v for name, v in chosen.items() if v is not None})


class _Learned:
    def __init__(self, latent: vgx.LatentSpec, settings: dict[str, Any]) -> None:
        self.latent, self.settings = latent, settings
        self.model: vgx.Model | None = None
        self.conditional = False  # whether the prior takes labels

    def use(self, model: vgx.Model) -> None:
        """Take the networks. Raises `RecipeError` for a setting that the prior does not know."""
        self.model, part = model, model.recipe.prior
        if model.prior is None or part is None:
            return
        known = inspect.signature(model.prior.draw).parameters
        if wrong := [name for name in self.settings if name not in known]:
            text = f"the prior {part.type} has no such setting; leave it out"
            raise vgx.RecipeError(f"sampler learned-prior: {wrong[0]}: {text}")
        self.conditional = part.conditional

    def draw(self, n: int, codes: Tensor, generator: Generator) -> Tensor:
        """[n, *Z]  From N(0, I) while there is no prior."""
        return self._drawn(n, None, codes, generator)

    def draw_class(self, label: int, n: int, codes: Tensor, generator: Generator) -> Tensor:
        """[n, *Z]  Of one class, if the prior takes labels."""
        return self._drawn(n, label, codes, generator)

    def _drawn(self, n: int, label: int | None, codes: Tensor, generator: Generator) -> Tensor:
        import torch

        model, pieces = self.model, []
        if model is None or model.prior is None:
            rows = [torch.randn(self.latent.shape, generator=generator) for _ in range(n)]
            return torch.stack(rows).to(codes)
        # Always so many at once, so that a latent does not depend on n.
        given: tuple[Tensor | None, ...] = ()
        if self.conditional:
            given = (None if label is None else torch.full((CHUNK,), label),)
        for _ in range(0, n, CHUNK):
            drawn = model.prior.draw(CHUNK, *given, generator, **self.settings)
            pieces.append(model.latents_of(drawn).to(codes))
        return torch.cat(pieces)[:n]
