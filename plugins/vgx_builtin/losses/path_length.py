"""Path length regularisation of decoders with a mapping network."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, PositiveInt

import vgx


class PathLength(vgx.Loss, type="path-length"):
    """Keep the length of a step in the image per step in w the same everywhere.

    mean (|J^T y| - a)^2, with J the derivative of the image by w, y ~ N(0, I / (H W)), and a moving
    average a of |J^T y| that is saved with the run (Karras et al. 2020, "Analyzing and Improving
    the Image Quality of StyleGAN", eq. 4). Pixels are those of [-1, 1], as in the paper. Of w with
    layers, [L, S], |.|^2 is the mean over layers, as in the authors' program. It draws latents from
    N(0, I) of its own, and needs a decoder with a mapping network, such as `style`. Compute it
    lazily: `every: 4` in the paper.
    """

    weight: vgx.Weight = 2.0
    """2 in the authors' program; a number, a schedule or adaptive."""
    shrink: PositiveInt = 2
    """Its number of latents is the minibatch's size divided by this, to save memory and time."""
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """The decay of the moving average, which begins at 0, each time that the term is computed."""

    def build(self, image: vgx.ImageSpec, latent: vgx.LatentSpec) -> Any:
        """Make a module that holds the average and has the generator's term."""
        del image, latent
        from vgx_builtin.losses.path_length_term import PathLengthTerm

        return PathLengthTerm(self.shrink, self.decay)
