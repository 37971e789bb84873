"""Whether a change of the code changed anything that it computes: the proof of a refactoring.

    python tests/same_bits.py note BEFORE              # with the code as it was
    python tests/same_bits.py compare BEFORE           # with the code as it is; exits 1 on a change

`note` trains the recipes for a few steps on one thread and writes to the folder BEFORE what came of
them: log lines, SHA-256 sums of checkpoints and pictures, resolved recipes, `vgx schema`, and
`vgx parts` of every part. The runs stay there too. `compare` does the same again, names every
difference, and goes on with copies of the old runs by `vgx resume --verify`.

    --recipes tiny,vae      some recipes only
    --allow notes,parts     texts that a change was meant to change; they are named, and no failure
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
RECIPES = (
    "tiny", "quickstart", "vae", "beta_vae", "infovae", "vqvae", "dcgan", "wgan_gp", "sngan_hinge",
    "r3gan", "larsen_vaegan", "kl_autoencoder", "vqgan",
)  # fmt: skip
WITH_PRIOR = ("vqvae", "kl_autoencoder", "vqgan")
STEPS = 20
SETTINGS = {"train.steps": STEPS, "train.log_every": 1, "train.save_every": 10, "train.keep": 3}


def vgx(*arguments: str) -> str:
    """Run one command on one thread, and return what it prints."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    done = subprocess.run(
        [sys.executable, "-m", "vgx", *arguments],
        capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, **one},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"vgx {' '.join(arguments)}: exit {done.returncode}\n{done.stderr}")
    return done.stdout


def results(recipe: str, runs: Path) -> dict[str, object]:
    """Train a recipe for a few steps; return all that came of it, but for times."""
    folder = runs / recipe
    settings = SETTINGS | ({"prior.steps": STEPS} if recipe in WITH_PRIOR else {})
    pairs = [f"{key}={value}" for key, value in settings.items()]
    options = [word for pair in pairs for word in ("--set", pair)]
    vgx("run", f"recipes/{recipe}.yaml", *options, "--out", str(folder), "--device", "cpu")
    (run,) = folder.iterdir()
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    found: dict[str, object] = {
        "log": [{**line, "seconds": 0, "images_per_second": 0} for line in lines]
    }
    for checkpoint in sorted((run / "checkpoints").iterdir()):
        for file in sorted(checkpoint.glob("*.safetensors")):
            found[f"{checkpoint.name}/{file.name}"] = digest(file)
        numbers = json.loads((checkpoint / "state.json").read_text())
        found[f"{checkpoint.name}/state.json"] = {**numbers, "seconds": 0}
    for picture in sorted((run / "samples").glob("*.png")):
        found[picture.name] = digest(picture)
    audit = json.loads((run / "audit.json").read_text())
    # But not a time, and what this machine has.
    found["audit"] = {key: audit[key] for key in ("rows", "losses", "flows")}
    found["notes"] = audit["notes"]
    found["recipe"] = (run / "recipe.yaml").read_text()
    return found


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def texts() -> dict[str, object]:
    """Return what the program says of its parts and of recipes."""
    found: dict[str, object] = {"schema": vgx("schema"), "parts": vgx("parts")}
    for line in str(found["parts"]).splitlines()[1:]:
        kind, name = line.split()[:2]
        found[f"parts {kind}/{name}"] = vgx("parts", f"{kind}/{name}")
    dump = "import sys, vgx; print(vgx.dump_recipe(vgx.load_recipe(sys.argv[1])))"
    for file in sorted((ROOT / "recipes").glob("*.yaml")):
        done = subprocess.run(
            [sys.executable, "-c", dump, str(file)], capture_output=True, text=True, check=True
        )
        found[f"dump {file.name}"] = done.stdout
    return found


def gathered(recipes: list[str], runs: Path) -> dict[str, dict[str, object]]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # each command has one thread
        trained = pool.map(lambda recipe: (recipe, results(recipe, runs)), recipes)
        return {**dict(trained), "texts": texts()}


def differences(old: dict[str, object], new: dict[str, object], name: str) -> list[tuple[str, str]]:
    """Return what differs: its name, and the first lines of how."""
    found = []
    for key in {**old, **new}:
        if old.get(key) == new.get(key):
            continue
        one, two = (
            value if isinstance(value := each.get(key, ""), str) else json.dumps(value, indent=1)
            for each in (old, new)
        )
        lines = difflib.unified_diff(one.splitlines(), two.splitlines(), "before", "now", n=0)
        found.append((f"{name} {key}", "\n    ".join([*lines][:12])))
    return found


def resumed(recipe: str, before: Path) -> str:
    """Go on with a copy of a run that was made before; return what `--verify` says."""
    with tempfile.TemporaryDirectory() as folder:
        (run,) = (before / "runs" / recipe).iterdir()
        shutil.copytree(run, copy := Path(folder) / run.name)
        said = vgx("resume", str(copy), "--verify", "--device", "cpu")
        return next(line for line in said.splitlines() if "repeat" in line).partition(": ")[2]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("note", "compare"))
    parser.add_argument("before", type=Path)
    parser.add_argument("--recipes", default=",".join(RECIPES))
    parser.add_argument("--allow", default="")
    asked = parser.parse_args()
    recipes, file = asked.recipes.split(","), asked.before / "results.json"
    if asked.what == "note":
        asked.before.mkdir(parents=True)
        file.write_text(json.dumps(gathered(recipes, asked.before / "runs"), indent=1))
        return 0
    old = json.loads(file.read_text())
    with tempfile.TemporaryDirectory() as folder:
        new = gathered(recipes, Path(folder))
    wrong, meant = [], tuple(name for name in asked.allow.split(",") if name)
    for name in (*recipes, "texts"):
        found = differences(old[name], json.loads(json.dumps(new[name])), name)
        print(f"{name}: {'equal' if not found else f'{len(found)} of {len(old[name])} differ'}")
        for which, how in found:
            allowed = bool(meant) and which.partition(" ")[2].startswith(meant)
            print(f"  {which}{' (meant)' if allowed else ''}\n    {how}")
            wrong += [] if allowed else [which]
    for recipe in recipes:
        print(f"{recipe}: a run made before, resumed now: {resumed(recipe, asked.before)}")
    print(f"{len(wrong)} differences that were not meant" if wrong else "Nothing changed.")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
