"""A run for people: its history, its images, and how it shows itself.

Letters: N images, C channels, H x W pixels, Z the latent shape, K given images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from vgx import rng
from vgx.errors import RecipeError, VgxError, noticing
from vgx.notebook import html
from vgx.notebook.curves import charts
from vgx.notebook.given import Given, labels_for, read
from vgx.notebook.history import history
from vgx.notebook.images import Images, as_webp, enlarged
from vgx.notebook.kernel import cell, require_new
from vgx.output import short, visible_lines
from vgx.parts.kinds import Sampler
from vgx.recipe.load import load_recipe
from vgx.recipe.model import Recipe
from vgx.runs import directory, frames, reading
from vgx.runs.summary import Summary, summarize
from vgx.runs.trust import registry_of
from vgx.sampling.draw import class_names, decoded, draw_rows, open_sampler, require_numbers
from vgx.sampling.model import Model, load

Labels = str | int | Sequence[str | int] | None  # of images: for all, or one for each
TERMS = 12  # of the losses in a line of text, at most


@dataclass(frozen=True)
class Page:
    """A page that a notebook shows in a frame."""

    path: Path

    def __repr__(self) -> str:
        return f"Page {self.path.name}\n{self.path}"

    def _repr_html_(self) -> str:
        """Return a frame that loads the file: the page itself may be too large for a notebook."""
        style = f"width:100%;height:640px;border:{html.BORDER}"
        frame = f'<iframe src="{html.address(self.path)}" style="{style}"></iframe>'
        return html.block(frame, html.link(self.path, self.path.name))


class Run(directory.Run):
    """A run: its history, its images, and what can be drawn with it.

    `vgx.Run(7)`, `vgx.Run("quickstart")` and `vgx.Run()` find a run by its number, its name, or the
    newest one, as commands do. A `pathlib.Path` is its folder.
    """

    _shown_in: int | None = None  # the cell of the notebook that shows it already

    def __init__(self, path: directory.Run | str | Path | int | None = None) -> None:
        """Find the run. Raises `StorageError` that lists the newest runs."""
        found = path if isinstance(path, Path) else directory.find(path).path
        super().__init__(found)

    # --- what is known of it ---------------------------------------------------------------------

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe. Raises `PluginError` for plugin files that are not trusted."""
        return load_recipe(self.recipe_file, (), registry_of(self))

    @property
    def state(self) -> str:
        """One of running, done, stopped, diverged, failed, killed; or "broken: " and why."""
        return summarize(self).state

    @property
    def step(self) -> int:
        """The number of steps that are done."""
        return summarize(self).step

    @property
    def history(self) -> Any:
        """The log as rows: a `pandas.DataFrame` where pandas is installed, else `Rows`.

        Its columns are `step`, `epoch`, `images`, `seconds`, and numbers such as `losses.l1`.
        """
        return history(self.read_log())

    def model(
        self,
        device: torch.device | str | None = None,
        *,
        best: bool = False,
        step: int | None = None,
    ) -> Model:
        """Return the networks of the newest checkpoint, or of another one: `vgx.load`."""
        return load(self, device, best=best, step=step)

    # --- what it draws ---------------------------------------------------------------------------

    def sample(
        self,
        n: int = 100,
        sampler: str | Sampler | None = None,
        seed: int = 0,
        *,
        settings: dict[str, Any] | None = None,
        device: torch.device | str | None = None,
        best: bool = False,
        step: int | None = None,
        label: str | int | None = None,
    ) -> Images:
        """Draw n new images; the arguments are those of `vgx.sample`."""
        require_numbers(n, seed)
        notices: list[str] = []
        with noticing(notices):
            model, prepared = open_sampler(
                self, sampler, settings, device, best=best, label=label, step=step
            )
            images, captions = draw_rows(model, prepared, n, seed)
        about = f"run {self.path.name}, step {model.step:,}, {prepared.part.type}, seed {seed}"
        columns = prepared.part.row_length
        return Images(images.cpu(), columns, captions, None, about, tuple(notices))

    def reconstruct(
        self,
        images: Given | Sequence[Given],
        n: int = 32,
        *,
        labels: Labels = None,
        device: torch.device | str | None = None,
        best: bool = False,
        step: int | None = None,
    ) -> Images:
        """Encode and decode at most n images; they are shown below the given ones.

        `images` is a folder, a file, a PIL image, an array [H, W, C] or [N, H, W, C], a tensor
        [N, C, H, W] in [0, 1], or a list of these. A model that takes labels needs their classes:
        `labels` is the name or the number of one class, or a list with one for each image. It may
        be left out for images whose classes are known: those of `vgx.peek`, and a folder that is
        read as the recipe's data set.
        """
        notices: list[str] = []
        with noticing(notices):
            model = load(self, device, ("encoder", "decoder"), best=best, step=step)
            real, known = read(images, model.recipe, registry_of(self), n)  # [N, C, H, W]
            own = labels_for(labels, known, model.recipe, class_names(self, model.recipe))  # [N]
            made = _decoded(model, model.encode(real, own), own)  # [N, C, H, W]
        about = f"reconstructions below their originals, run {self.path.name}, step {model.step:,}"
        return Images(made, None, (), real, about, tuple(notices))

    def mix(
        self,
        *images: Given,
        n: int = 100,
        weights: Sequence[float] | None = None,
        labels: Labels = None,
        seed: int = 0,
        device: torch.device | str | None = None,
        best: bool = False,
        step: int | None = None,
    ) -> Images:
        """Encode two images or more, and decode weighted means of their latents.

        With `weights`, one for each image, one image is made. Without, n images are made with
        weights that are drawn uniformly from all that sum to 1. `labels` as in `reconstruct`; a
        mixture is decoded with the class of the image that has the largest weight in it.
        """
        notices: list[str] = []
        with noticing(notices):
            model = load(self, device, ("encoder", "decoder"), best=best, step=step)
            real, known = read(images, model.recipe, registry_of(self), 10**6)  # [K, C, H, W]
            if len(real) < 2:
                raise RecipeError("a mixture needs two images or more")
            own = labels_for(labels, known, model.recipe, class_names(self, model.recipe))  # [K]
            codes = model.encode(real, own).cpu()  # [K, *Z]
            share = _weights(weights, n, len(real), seed).to(codes)  # [N, K]
            of_each = None if own is None else own[share.argmax(1)]  # [N]
            made = _decoded(model, torch.tensordot(share, codes, 1), of_each)  # [N, C, H, W]
        about = f"mixtures of {len(real)} images, run {self.path.name}, step {model.step:,}"
        return Images(made, None, (), None, about, tuple(notices))

    def plot(self, what: str = "curves", **options: Any) -> Any:
        """Return a figure of the run, which shows itself and has `save`: `vgx.plot`."""
        import vgx

        return vgx.plot(self, what, **options)

    def explore(self, out: str | Path | None = None, **options: Any) -> Page:
        """Write the page to play with the run, and show it: `vgx.explore`."""
        import vgx

        return Page(vgx.explore(self, out, **options))

    # --- how it shows itself ---------------------------------------------------------------------

    def __repr__(self) -> str:
        facts = " · ".join(_facts(summarize(self)))
        losses = [f"{short(name)} {value:.3g}" for name, value in _last(self).items()]
        shown = ", ".join(losses[:TERMS]) or "no losses yet"
        return visible_lines(f"Run {facts}\n{shown} · {self.path}")

    def shown(self) -> Self:
        """Note that the cell that is executed now shows the run already; return the run."""
        object.__setattr__(self, "_shown_in", cell())
        return self

    def _ipython_display_(self) -> None:
        require_new(self._shown_in)

    def _repr_html_(self) -> str:
        notices: list[str] = []
        with noticing(notices):
            log = reading.unless_damaged(_log, self.path) or []
            second = reading.unless_damaged(_log, self.path / "prior") or []
            image = newest_grid(self)
        grid = html.picture(*image) if image else ""
        page = self.path / "report.html"
        link = html.link(page, "page of the run") if page.is_file() else ""
        place = f"<code>{html.escaped(self.path)}</code>"
        return html.block(
            heading(self),
            grid,
            charts(log),
            second_stage(second),
            html.lines([f"NOTICE: {text}" for text in notices]),
            " · ".join(filter(None, (place, link))),
        )


def _log(path: Path) -> list[reading.Line]:
    return directory.Run(path).read_log()


def _last(run: Run) -> Mapping[str, float]:
    """Return the losses of the last line of the log; none for a damaged log."""
    try:
        return (reading.last_line(run.path) or {"step": 0}).get("losses", {})
    except VgxError:
        return {}


def _facts(summary: Summary) -> list[str]:
    of = f" of {summary.of:,}" if summary.of else ""
    steps = f"step {summary.step:,}{of}"
    return [each for each in (summary.name, summary.state, steps, summary.best) if each]


def heading(run: directory.Run) -> str:
    """Return the name of a run in bold letters, with its state, as HTML."""
    return html.title(*_facts(summarize(run)))


def second_stage(lines: Sequence[reading.Line]) -> str:
    """Return the curves of the log of a prior as HTML; "" when there are none."""
    drawn = charts(lines)
    return html.title("prior") + drawn if drawn else ""


def newest_grid(run: directory.Run) -> tuple[bytes, str, str] | None:
    """Return the newest grid of samples as WebP, its format and a description.

    None when there is none, or none that can be read, then with a `Notice`.
    """
    drawn = frames.drawn(run)
    if not drawn:
        return None
    pixels = frames.pixels_of(reading.unless_damaged(reading.recipe, run.path) or {})
    image = reading.unless_damaged(lambda path: reading.grid(path, pixels), drawn[-1])
    if image is None:
        return None
    return as_webp(enlarged(image)), "webp", f"samples at step {frames.step_of(drawn[-1]):,}"


def _decoded(model: Model, z: Tensor, labels: Tensor | None) -> Tensor:
    """[N, C, H, W]  Decode latents [N, *Z] with their labels [N]; the images are on the CPU."""
    return torch.cat([part.cpu() for part in decoded(model, z, labels)])


def _weights(weights: Sequence[float] | None, n: int, of: int, seed: int) -> Tensor:
    """[n, of]  The given weights as one row, or rows that are drawn uniformly; each sums to 1."""
    if weights is not None:
        if len(weights) != of:
            raise RecipeError(f"weights: {len(weights)} for {of} images; give one for each image")
        row = torch.tensor([[float(weight) for weight in weights]])  # [1, of]
        if not (row.isfinite().all() and row.sum() > 0):
            raise RecipeError(f"weights: {[*weights]}: give finite numbers with a positive sum")
        return row / row.sum()
    require_numbers(n, seed)
    # Normalised exponential numbers are Dirichlet(1, ..., 1).
    drawn = torch.empty(n, of).exponential_(generator=rng.generator(seed, "mix"))  # [n, of]
    return drawn / drawn.sum(1, keepdim=True)
