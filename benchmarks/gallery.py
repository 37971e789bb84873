"""Train the recipes of the gallery, draw forty images with each, and write the gallery's page.

python benchmarks/gallery.py                  # all of them: about half an hour on two cores
python benchmarks/gallery.py vae dcgan        # only these; the page keeps the others
python benchmarks/gallery.py --page           # only the page, from earlier results
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import vgx
from vgx.images import save_grid
from vgx.sampling.draw import draw_rows, open_sampler

ROOT = Path(__file__).parents[1]
PAGE, FOLDER = ROOT / "docs" / "gallery.md", ROOT / "docs" / "gallery"
RECIPES = (
    "vae", "beta_vae", "infovae", "vqvae", "dcgan", "wgan_gp", "sngan_hinge", "r3gan",
    "larsen_vaegan", "kl_autoencoder", "vqgan",
)  # fmt: skip
COUNT = 40


def train(name: str, runs: str) -> None:
    recipe = vgx.load_recipe(ROOT / "recipes" / f"{name}.yaml")
    run = vgx.run(recipe, out=runs)
    model, prepared = open_sampler(run)
    drawn, captions = draw_rows(model, prepared, COUNT, 0)
    columns = prepared.part.row_length or 10
    save_grid(drawn, FOLDER / f"{name}.png", columns, captions)
    lines = [line for line in run.read_log() if line["losses"]]
    losses: dict[str, list[float]] = {}  # by term: its first and its last value
    for line in lines:
        for term, value in line["losses"].items():
            losses.setdefault(term, [value, value])[1] = value
    results = {
        "sampler": recipe.sampler.type,
        "steps": model.step,
        "images": lines[-1]["images"],
        "seconds": round(lines[-1]["seconds"]),
        "losses": losses,
    }
    (FOLDER / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")


def section(name: str) -> str:
    results = json.loads((FOLDER / f"{name}.json").read_text())
    comment = re.findall(r"^# (.*)", (ROOT / "recipes" / f"{name}.yaml").read_text(), re.MULTILINE)
    intro = " ".join(line for line in comment if not line.startswith("Other images"))
    rows = [f"| `{t}` | {a:.4g} | {b:.4g} |" for t, (a, b) in results["losses"].items()]
    trained = (
        f"{results['steps']:,} steps, {results['images']:,} images, {results['seconds']} s; "
        f"images drawn by `{results['sampler']}`."
    )
    table = ["| term | at the start | at the end |", "|---|---|---|", *rows]
    title = f"## [`{name}`](../recipes/{name}.yaml)"
    return "\n\n".join([title, intro, f"![{name}](gallery/{name}.png)", trained, "\n".join(table)])


def write_page() -> None:
    head = PAGE.read_text().partition("\n## ")[0].rstrip()
    trained = [name for name in RECIPES if (FOLDER / f"{name}.json").exists()]
    PAGE.write_text("\n\n".join([head, *map(section, trained)]) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="names of recipes without .yaml; all by default")
    parser.add_argument("--runs", default="runs/gallery")
    parser.add_argument("--page", action="store_true", help="train nothing")
    options = parser.parse_args()
    for name in [] if options.page else options.names or RECIPES:
        train(name, options.runs)
    write_page()


if __name__ == "__main__":
    main()
