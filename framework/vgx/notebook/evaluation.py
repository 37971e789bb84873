"""An evaluation for people: its figures, and how it shows itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vgx.check.blame import blaming
from vgx.console import Console, aligned
from vgx.engine.build import pick_device
from vgx.evaluation.choice import settings_for
from vgx.evaluation.evaluate import evaluate_run
from vgx.evaluation.tables import meanings, spread_of, tables
from vgx.notebook import html
from vgx.notebook.kernel import ShownOnce
from vgx.notebook.live import chosen_console, showing, shown
from vgx.notebook.run import Run
from vgx.notebook.training import AnyRun
from vgx.parts.kinds import Dataset, Sampler
from vgx.recipe.load import load_recipe
from vgx.runs.trust import registry_of
from vgx.training import environment


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(ShownOnce):
    """What was measured of a run. In a notebook it is shown as tables."""

    run: Run
    results: Mapping[str, Any]  # the content of evaluation.json

    @property
    def figures(self) -> dict[str, float]:
        """The means by name: of reconstructions, of the first sampler, of the latents."""
        samplers = self.results["generation"][:1]
        parts = [self.results["reconstruction"], *samplers, self.results["latent"]]
        return {
            name: figure["mean"]
            for part in parts
            if part is not None
            for name, figure in part["figures"].items()
        }

    def __getitem__(self, name: str) -> float:
        """Return the mean of a figure: `evaluation["psnr"]`."""
        return self.figures[name]

    def __str__(self) -> str:
        lines = [
            line
            for title, header, rows in self._tables
            for line in ("", title, *aligned([header, *rows]))
        ]
        return "\n".join([self._title, *lines])

    def __repr__(self) -> str:
        shown = ", ".join(f"{name} {value:.4g}" for name, value in self.figures.items())
        return f"{self._title}\n{shown}"

    def _repr_html_(self) -> str:
        parts = [
            html.block(html.escaped(title), html.table(header, rows))
            for title, header, rows in self._tables
        ]
        lines = [spread_of(len(self.results["seeds"]))]
        notices = html.lines([*lines, *(f"NOTICE: {text}" for text in self.results["notices"])])
        explained = html.table(("figure", "meaning"), meanings({**self.results}))
        folded = html.folded("what the figures mean", explained)
        return html.block(html.title(self._title), *parts, notices, folded)

    @property
    def _title(self) -> str:
        seeds, step = len(self.results["seeds"]), f"step {self.results['step']:,}"
        spread = f"{seeds} seeds" if seeds > 1 else "one seed"
        return f"Evaluation of run {self.run.path.name}, {step}; {spread}"

    @property
    def _tables(self) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
        return tables(self.results)


def evaluate(
    run: AnyRun = None,
    metrics: str | Sequence[Any] | None = None,
    *,
    against: str | Path | Dataset | None = None,
    samplers: str | Sampler | Sequence[str | dict[str, Any] | Sampler] = (),
    n: int = 10_000,
    seeds: int = 3,
    best: bool = False,
    step: int | None = None,
    device: torch.device | str | None = None,
    quiet: bool = False,
    console: Console | None = None,
) -> Evaluation:
    """Measure a run as `vgx eval` does, write `evaluation.json`, and return the figures.

    `metrics` are names, by default the recipe's or all that need no download; `against` are other
    images than the run's; `samplers` by default the recipe's. Of each set at most n images are
    used, and generated ones are drawn with as many `seeds`.
    """
    environment.one_process("vgx eval")
    console, found = console or chosen_console(quiet=quiet), Run(run)
    registry = registry_of(found).with_parts((metrics, samplers, against))
    recipe = load_recipe(found.recipe_file, (), registry)
    other = str(against) if isinstance(against, Path) else against
    settings = settings_for(
        recipe, registry, console, metrics, other, samplers, n, seeds, best, step
    )
    with showing(console), blaming(registry):
        results = evaluate_run(found, recipe, settings, registry, pick_device(device), console)
    return shown(console, Evaluation(found, results))
