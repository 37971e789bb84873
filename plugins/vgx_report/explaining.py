"""`vgx.explain`: an experiment as a diagram, as a value that shows itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import vgx
from vgx.console import Console, aligned
from vgx.files import require_ending, user_path, write_file
from vgx.notebook import html
from vgx.notebook.kernel import ShownOnce
from vgx.recipe.library import find_recipe
from vgx.runs.directory import Run, find
from vgx_report import diagram

NORMS = "Gradient norm of each term in each network before the first step:"


@dataclass(frozen=True, eq=False, repr=False)
class Explained(ShownOnce):
    """An experiment: its networks, what updates them, which terms reach them, what it costs."""

    explanation: diagram.Explanation

    def save(self, path: str | Path) -> Path:
        """Write the diagram as SVG, and return its file."""
        file = user_path(path)
        require_ending(file, "a drawing", [".svg"])
        write_file(file, diagram.svg(self.explanation))
        return file

    def __str__(self) -> str:
        known = self.explanation
        header, rows = diagram.table(known)
        lines = [known.name, "", *diagram.chain(known), "", NORMS, *aligned([header, *rows]), ""]
        return "\n".join([*lines, *known.movers, *known.costs, *known.notes])

    def __repr__(self) -> str:
        terms = ", ".join(term.label for term in self.explanation.terms)
        return f"Explanation of {self.explanation.name}: print() shows all\nterms: {terms}"

    def _repr_html_(self) -> str:
        return html.vector(diagram.svg(self.explanation), repr(self))


def explain(
    what: Any = None,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    *,
    data: str | Path | None = None,
    device: str | None = None,
    plugins: str | Path | Sequence[str | Path] = (),
    quiet: bool = False,
    console: Console | None = None,
) -> Explained:
    """Draw an experiment, as `vgx explain` does; `save` writes it as SVG.

    `what` is a run (the newest by default), which is drawn from its files, or a recipe as
    `vgx.load_recipe` takes it, of which a few steps are measured. A text is the file of a recipe,
    else a run, else the name of a recipe. With arguments that change a recipe it is a recipe.
    """
    changed = bool(overrides or plugins or data is not None or device)
    if not is_recipe(what, changed=changed):
        if changed:
            raise vgx.RecipeError("a run cannot be changed; its recipe can: vgx.Run(7).recipe")
        return Explained(diagram.of_run(find(what)))
    from vgx.notebook.live import chosen_console, showing, shown

    console = console or chosen_console(quiet=quiet)
    registry = vgx.discover(plugins)
    recipe = vgx.load_recipe(what, overrides, registry, data)
    with showing(console):
        explanation = of_recipe(recipe, registry.with_parts(recipe), device, console)
    return shown(console, Explained(explanation))


def is_recipe(what: Any, *, changed: bool) -> bool:
    """Return whether something is a recipe, and no run; `changed` when it is to be changed."""
    if not isinstance(what, str | Path):
        return not (what is None or isinstance(what, int | Run))
    if changed or Path(what).is_file() or not find_recipe(what).is_file():
        return find_recipe(what).is_file()
    try:
        find(what)
    except vgx.StorageError:
        return True
    return False


def of_recipe(
    recipe: vgx.Recipe, registry: vgx.Registry, device: str | None, console: Console
) -> diagram.Explanation:
    """Explain a recipe by its check, and by a few steps, whose time is measured."""
    from vgx.check import trials
    from vgx.training import session

    engine, findings = session.check(recipe, registry, device, console)
    seconds, count = trials.step_time(engine, findings.forward)
    step = seconds * recipe.train.batch / count
    pace = (
        f"Time: about {diagram.duration(step * engine.steps)} for {engine.steps:,} steps on "
        f"{engine.device}: {diagram.duration(step)} a step, measured on {trials.STEPS} steps of "
        f"{count:,} random images; drawing, saving and evaluation take more time."
    )
    plain = engine.recipe.model_dump(mode="json")  # with lengths of schedules
    return diagram.explain(plain, asdict(findings), engine.steps, pace)
