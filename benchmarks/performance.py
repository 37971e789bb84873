"""Speed of vgx and of other programs on this machine: Markdown tables for docs/performance.md.

The candidates take turns in one process, so that changes of the machine's speed affect all of them;
values are medians over the rounds, with minimum and maximum.

    pip install -e '.[bench]' && python benchmarks/performance.py
    python benchmarks/performance.py --only Training
    python benchmarks/performance.py --only Starting --first-edition CLONE
    python benchmarks/performance.py --quick --out /dev/stdout       # only checks that it works
"""

from __future__ import annotations

import argparse
import os
import platform
import re
from importlib.metadata import version
from pathlib import Path

import torch
from speed_data import data
from speed_quickstart import quickstart
from speed_sampling import sampling
from speed_starting import starting
from speed_training import training
from speed_tried import tried
from tables import ROOT

ABOUT = """# Performance

`python benchmarks/performance.py` writes this page. Each section ends with the machine that it was
measured on; a processor with other instructions has other ratios. Sections that say "x86_64" alone
were measured before the page named the instructions. The candidates take turns in one process, so
that changes of the machine's speed affect all of them. Values are medians [minimum..maximum]."""
SECTIONS = {
    "Training": training,
    "Tried, and not used": tried,
    "Step of the small recipes": quickstart,
    "Data": data,
    "Sampling": sampling,
    "Starting": starting,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, to check that it works")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="steps in one turn of a candidate")
    parser.add_argument(
        "--only", choices=SECTIONS, help="measure one section again, keep the others"
    )
    parser.add_argument(
        "--first-edition", type=Path, help="a clone of it with a .venv, for the section Starting"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "performance.md")
    options = parser.parse_args()
    if options.quick:
        options.rounds = options.steps = 1
    for name in [options.only] if options.only else list(SECTIONS):
        text = f"{SECTIONS[name](options)}\n\n{conditions(options)}"
        options.out.write_text(replaced(options.out, name, text))


def replaced(file: Path, name: str, text: str) -> str:
    """Return a page with another text of one section; all others stay, in the order of the page."""
    page = sections(file.read_text()) if file.is_file() else {}
    page[name] = text
    ordered = [*(n for n in SECTIONS if n in page), *(n for n in page if n not in SECTIONS)]
    return "\n\n".join([ABOUT, *(page[each] for each in ordered)]) + "\n"


def sections(text: str) -> dict[str, str]:
    """Return the sections of the page by their headings, with the headings."""
    parts = re.split(r"^(?=## )", text, flags=re.MULTILINE)[1:]
    return {part.splitlines()[0].removeprefix("## "): part.strip() for part in parts}


def conditions(options: argparse.Namespace) -> str:
    instructions = torch.backends.cpu.get_cpu_capability()  # such as AVX2
    processor = f"{platform.machine()} with {instructions}{has_bf16()}"
    device = f"{processor}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    versions = f"Python {platform.python_version()}, torch {version('torch')}"
    rounds = "1 round" if options.rounds == 1 else f"{options.rounds} rounds"
    return f"*{rounds} on {device}; {versions}, timm {version('timm')}.*"


def has_bf16() -> str:
    """Return what the processor has for products in bfloat16, in words."""
    known = {
        "AVX512-BF16": torch.cpu._is_avx512_bf16_supported,  # noqa: SLF001
        "AMX": torch.cpu._is_amx_tile_supported,  # noqa: SLF001
    }
    has = [name for name, is_supported in known.items() if is_supported()]
    return f", {' and '.join(has)}" if has else " and nothing for bfloat16"


if __name__ == "__main__":
    main()
