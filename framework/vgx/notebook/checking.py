"""A check of a recipe for people: what is known before the first step, and how it shows itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vgx.check.examine import Findings
from vgx.console import Console, aligned
from vgx.notebook import html
from vgx.notebook.kernel import ShownOnce
from vgx.notebook.live import chosen_console, showing, shown
from vgx.notebook.training import Overrides, complete
from vgx.parts.registry import Registry
from vgx.recipe.load import AnyRecipe
from vgx.recipe.model import Recipe
from vgx.training import session


@dataclass(frozen=True, eq=False, repr=False)
class Checked(ShownOnce):
    """A recipe that can be trained, and what is known of it. A notebook shows tables."""

    recipe: Recipe
    findings: Findings

    @property
    def notes(self) -> list[str]:
        """What the audit found worth saying."""
        return self.findings.notes

    def __str__(self) -> str:
        found = self.findings
        tables = [aligned([header, *rows]) for header, rows in (found.networks, found.norms)]
        lines = [*tables[0], found.first_losses, *tables[1], *found.notes]
        return "\n".join([*lines, f"{self.recipe.name}: ready to run"])

    def __repr__(self) -> str:
        trained = sum(row.trained for row in self.findings.rows)
        notes = "1 note" if len(self.notes) == 1 else f"{len(self.notes)} notes"
        about = f"{trained:,} parameters are trained, {notes}: print() shows all"
        return f"Check of {self.recipe.name}: ready to run\n{about}"

    def _repr_html_(self) -> str:
        found = self.findings
        return html.block(
            html.title(self.recipe.name, "ready to run"),
            html.table(*found.networks),
            html.escaped(found.first_losses),
            html.table(*found.norms),
            html.lines(found.notes),
        )


def check(
    recipe: AnyRecipe,
    overrides: Overrides = (),
    *,
    data: str | Path | None = None,
    device: str | None = None,
    plugins: str | Path | Sequence[str | Path] = (),
    registry: Registry | None = None,
    quiet: bool = False,
    console: Console | None = None,
) -> Checked:
    """Find out what can be known of a recipe before its first step, as `vgx check` does.

    The arguments are those of `vgx.run`. Nothing is trained, and nothing is written. Raises
    `RecipeError` or another `VgxError` for a recipe that cannot be trained.
    """
    console = console or chosen_console(quiet=quiet)
    loaded, registry = complete(recipe, overrides, data, plugins, registry)
    with showing(console):
        session.refuse_lost_parts(loaded, registry)
        _, findings = session.check(loaded, registry, device, console)
    return shown(console, Checked(loaded, findings))
