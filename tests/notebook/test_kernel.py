"""A notebook, executed: what each cell shows, and what is kept in the file.

One kernel executes all cells, because starting one takes seconds.
"""

from __future__ import annotations

import base64
import io
import os
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow

SETUP = """
import os, warnings
import vgx
from vgx.notebook import live
live.SECONDS = 0.0
FAST = {"dataset.count": 16, "train.draw_every": 100, "train.precision": "fp32"}
"""
PART = """
import torch
from torch import nn

FACTOR = 2.0

def doubled(x):
    return FACTOR * x

class Cell(vgx.Loss, type="cell"):
    '''A loss that was written in this cell.'''

    power: int = 2
    '''The exponent.'''

    def generator(self, step):
        return doubled(nn.functional.l1_loss(step.recon, step.real)) ** self.power
"""
CELLS = {
    "setup": SETUP,
    "run": 'run = vgx.run("tiny", FAST | {"train.steps": 4})',
    "shown": "run",
    "at once": 'vgx.run("tiny", FAST | {"train.steps": 1})',
    "resumed": "run = vgx.resume(run, steps=6)",
    "done": "vgx.resume(run)",
    "typo": 'vgx.run("tiny", {"train.step": 4})',
    "sample": "run.sample(n=9)",
    "history": "run.history",
    "evaluated": 'vgx.evaluate(run, "psnr", n=8, seeds=1)',
    "compared": "vgx.compare(run, 2)",
    "failed": (
        "class Failing(vgx.Metric, type='failing'):\n"
        "    '''Fails when it is built.'''\n\n"
        "    def build(self, image):\n        raise vgx.RecipeError('in the middle')\n\n"
        "vgx.evaluate(run, [Failing()], n=8, seeds=1)"
    ),
    "checked": 'vgx.check("tiny", FAST)',
    "explained": 'vgx.explain("tiny", FAST)',
    "recipes": "vgx.recipes()",
    "listed": "vgx.runs()",
    "recipe": 'vgx.load_recipe("tiny")',
    "model": "vgx.load(run)",
    "loop": (
        'for step in vgx.train("tiny", FAST | {"train.steps": 3}):\n'
        '    print("mine", step.number)\n'
        "assert step.run.state == 'done'"
    ),
    "part": PART,
    "kept": (
        'recipe = vgx.load_recipe("tiny", FAST | {"train.steps": 1})\n'
        'own = vgx.run(recipe.with_({"losses": [*recipe.losses, Cell(power=3)]}))'
    ),
    "lost": (
        "table = object()\n"
        'class Lost(vgx.Loss, type="lost"):\n'
        "    '''Uses what no file has.'''\n\n"
        "    def generator(self, step):\n        return step.recon.mean() * table.x\n\n"
        'vgx.run(recipe.with_({"losses": [*recipe.losses, Lost()]}))'
    ),
    "broken": (
        'run.log_file.write_text("<script>no line</script>\\n")\n'
        '(run.path / "ended.json").write_text("{")\n'
        "display(run)"
    ),
    "interrupted": (
        "import signal, threading, time\n"
        "def interrupt():\n"
        "    while not any(run.step for run in vgx.runs()[:1] if 'long' in run.path.name):\n"
        "        time.sleep(0.2)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "threading.Thread(target=interrupt).start()\n"
        'stopped = vgx.run("tiny", FAST | {"train.steps": 100000, "name": "long"})'
    ),
    "stopped": "stopped",
    "imports": (
        "import sys\nprint(sorted({'ipywidgets'} & set(sys.modules)), stopped.state, own.path)"
    ),
}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """The outputs of each cell, by its name, and the size of the cell in the file."""
    folder = tmp_path_factory.mktemp("notebook")
    cells = [nbformat.v4.new_code_cell(text) for text in CELLS.values()]
    notebook = nbformat.v4.new_notebook(cells=cells)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("VGX_RUNS", "VGX_CACHE", "VGX_CONFIG"):
            patch.setenv(name, str(folder / name))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
        place = {"metadata": {"path": str(folder)}}
        NotebookClient(
            notebook, timeout=300, allow_errors=True, kernel_name="python3", resources=place
        ).execute()
    nbformat.write(notebook, folder / "kept.ipynb")
    kept = nbformat.read(folder / "kept.ipynb", as_version=4)
    return dict(zip(CELLS, (cell.outputs for cell in kept.cells), strict=True))


ONE = [
    "run", "shown", "at once", "resumed", "done", "sample", "history", "evaluated", "compared",
    "listed", "recipe", "model", "kept", "checked", "explained", "recipes",
    "interrupted", "stopped", "broken",
]  # fmt: skip


@pytest.mark.parametrize("name", ONE)
def test_a_cell_has_one_output_of_less_than_a_megabyte(outputs, name):
    (output,) = outputs[name]
    assert output.output_type in ("display_data", "execute_result")
    assert sum(map(len, output.data.values())) < 1_000_000
    lines = output.data["text/plain"].splitlines()
    assert name in ("history", "listed", "recipes") or len(lines) == 2


def page(outputs, name):
    return outputs[name][0].data["text/html"]


def test_a_training_keeps_its_last_state(outputs):
    text = page(outputs, "run")
    assert "<b>0001-tiny</b> done · step 4 of 4" in text
    assert text.count("<polyline") == 5  # one curve for each term
    assert 'alt="samples at step 4"' in text.replace("&quot;", '"')
    (encoded,) = re.findall(r"data:image/webp;base64,([^\"]+)", text)
    assert Image.open(io.BytesIO(base64.b64decode(encoded))).format == "WEBP"
    assert "Auditing the losses" in text  # what it printed, folded
    assert re.search(r"Report\s", text)  # of a plugin
    assert "step 6 of 6" in page(outputs, "resumed")
    assert "step 6 of 6" in page(outputs, "done")
    assert "steps 1 to 6:" in page(outputs, "resumed")  # the curves begin where the run began


def test_an_error_is_a_message(outputs):
    (error,) = outputs["typo"]
    assert error.output_type == "error"
    text = "\n".join(error.traceback)
    assert text.startswith("vgx: --set train.step: train.step: unknown field")
    assert "Traceback" not in text
    assert "did you mean 'steps'" in text


def test_an_evaluation_that_fails_shows_its_error_and_no_bar(outputs):
    *shown, error = outputs["failed"]
    assert "in the middle" in "".join(error.traceback)
    assert [each for each in shown if "border-radius" in each.data["text/html"]] == []


def test_values_show_themselves(outputs):
    assert outputs["sample"][0].data["image/png"]
    assert "losses.l1" in page(outputs, "history")
    assert "psnr (more is better)" in page(outputs, "evaluated")
    assert "train.steps" in page(outputs, "compared")
    assert page(outputs, "listed").count("<tr>") == 3
    assert "extends" not in page(outputs, "recipe")
    assert "conv-transpose" in page(outputs, "recipe")
    assert "5,528" in page(outputs, "model")
    assert "<b>tiny</b> ready to run" in page(outputs, "checked")
    assert "gradient norm of" in page(outputs, "checked")
    assert "Auditing the losses" in page(outputs, "checked")  # what it printed, folded
    assert "data:image/svg+xml" in page(outputs, "explained")
    assert "sngan_hinge" in page(outputs, "recipes")


def test_ones_own_loop_prints_beside_the_training(outputs):
    shown, *printed = outputs["loop"]
    assert "step 3 of 3" in shown.data["text/html"]
    assert "".join(each.text for each in printed) == "mine 1\nmine 2\nmine 3\n"


def test_an_interrupt_saves_and_gives_the_run(outputs):
    text = page(outputs, "interrupted")
    assert re.search(r"</b> stopped · step [\d,]+ of 100,000", text)
    assert "stopping after this step" in text
    assert "stopped" in page(outputs, "stopped")
    (printed,) = outputs["imports"]
    assert printed.text.startswith("[] stopped ")


def test_a_part_of_a_cell_is_kept_with_the_run(outputs):
    """Another program, which has no such cell, draws with the run."""
    import vgx

    folder = Path(outputs["imports"][0].text.split()[-1])
    source = (folder / "plugins" / "defined_in_python.py").read_text()
    assert source.index("FACTOR = 2.0") < source.index("def doubled") < source.index("class Cell")
    assert "from torch import nn" in source or "import torch.nn as nn" in source
    with pytest.raises(vgx.PluginError, match="not trusted"):  # this user did not run the cell
        vgx.sample(folder, n=1)
    vgx.trust_plugins(folder)
    assert vgx.sample(folder, n=2, device="cpu").shape == (2, 3, 16, 16)
    assert vgx.Run(folder).recipe.losses[-1].power == 3


def test_a_part_that_cannot_be_kept_is_refused(outputs):
    (error,) = outputs["lost"]
    text = "\n".join(error.traceback)
    assert "Lost cannot be kept with the run: it uses table, a object of this program" in text
    assert 'vgx.run(recipe, plugins=["mine.py"])' in text


def test_a_broken_run_shows_itself_as_text(outputs):
    text = page(outputs, "broken")
    assert "broken: ended.json" in text
    assert "<script>" not in text
    assert "passed over: line 1" in text
