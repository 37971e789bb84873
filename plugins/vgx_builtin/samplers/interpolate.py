"""Interpolation between two latents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

import vgx

if TYPE_CHECKING:
    from torch import Generator, Tensor


class Interpolate(vgx.Sampler, type="interpolate"):
    """Go from one random latent to another in equal steps, a row of images for each pair.

    Image i is at t = (i mod steps) / (steps - 1) of pair i div steps, both ends included.
    lerp: z = (1 - t) a + t b. slerp: z = (sin((1 - t) w) a + sin(t w) b) / sin w, w being the
    angle between a and b (Shoemake 1985). Of two draws from N(0, I) the middle of a lerp is shorter
    than any draw is likely to be; a slerp keeps their length (White 2016). When the decoder takes
    labels, a row has one label, and both ends are latents of images with this label.
    """

    mode: Literal["lerp", "slerp"] = "lerp"
    """`lerp`: along the straight line; `slerp`: along the great circle."""
    between: Literal["codes", "prior"] = "codes"
    """The ends: two different stored latents of the run, or two draws from N(0, I)."""
    steps: Annotated[int, Field(ge=2)] = 10
    """Number of images for each pair, including the ends."""

    @property
    def row_length(self) -> int:
        """One row for each pair."""
        return self.steps

    @property
    def least_codes(self) -> int:
        """2 for a pair of stored latents, 0 for a pair from N(0, I)."""
        return 2 if self.between == "codes" else 0

    def build(self, latent: vgx.LatentSpec) -> vgx.LatentSampler:
        """Return an object that draws [n, *Z]."""
        return _Path(self, latent)


class _Path:
    def __init__(self, part: Interpolate, latent: vgx.LatentSpec) -> None:
        self.part, self.latent = part, latent

    def draw(self, n: int, codes: Tensor, generator: Generator) -> Tensor:
        """[n, *Z]  One pair after another, its ends among codes [K, *Z] or from N(0, I)."""
        import torch

        along = {"lerp": _lerp, "slerp": _slerp}[self.part.mode]
        places = torch.linspace(0, 1, self.part.steps, dtype=torch.float64)  # [steps]
        rows: list[Tensor] = []
        while len(rows) < n:
            a, b = self._ends(codes, generator)
            rows += [along(a, b, t) for t in places]
        return torch.stack(rows[:n]).to(codes)

    def _ends(self, codes: Tensor, generator: Generator) -> Tensor:
        """[2, *Z]  The two ends of a pair."""
        import torch

        if self.part.between == "prior":
            return torch.randn(2, *self.latent.shape, generator=generator, dtype=torch.float64)
        if len(codes) < 2:
            message = f"the run has {len(codes)} latents, and a pair needs two; between=prior works"
            raise vgx.RecipeError(f"sampler interpolate: between: codes: {message}")
        first = torch.randint(len(codes), (), generator=generator)
        further = torch.randint(1, len(codes), (), generator=generator)
        return codes[torch.stack([first, (first + further) % len(codes)])].double()


def _lerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    return (1 - t) * a + t * b


def _slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    from torch.nn import functional as F

    angle = F.cosine_similarity(a.flatten(), b.flatten(), dim=0).clamp(-1, 1).acos()
    if angle.sin() < 1e-6:  # the same or opposite directions: no great circle, or any
        return _lerp(a, b, t)
    weighted: Tensor = ((1 - t) * angle).sin() * a + (t * angle).sin() * b
    return weighted / angle.sin()
