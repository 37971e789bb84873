"""The notebook of the documentation, executed on a few images that are made here."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).parents[2]
SMALL = """
RECIPE = "tiny"
DATA = "my images"
CHANGES = {"train.steps": 6, "train.batch": 8}
"""


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The notebook with its outputs, and the folder in which it was executed."""
    folder = tmp_path_factory.mktemp("notebook")
    (folder / "my images").mkdir()
    generator = np.random.default_rng(0)
    for number in range(20):
        colours = generator.integers(0, 256, (2, 2, 3), np.uint8)
        image = Image.fromarray(colours).resize((20, 24), Image.Resampling.BILINEAR)
        image.save(folder / "my images" / f"{number}.png")
    notebook = nbformat.read(ROOT / "docs" / "notebook.ipynb", as_version=4)
    (at,) = [
        i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ())
    ]
    notebook.cells.insert(at + 1, nbformat.v4.new_code_cell(SMALL))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VGX_RUNS", str(folder / "runs"))
        for name in ("VGX_CACHE", "VGX_CONFIG"):
            patch.setenv(name, str(folder / name))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
        resources = {"metadata": {"path": str(folder)}}
        client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources)
        client.execute()
    return notebook, folder


def test_it_has_ten_cells_and_no_outputs():
    notebook = nbformat.read(ROOT / "docs" / "notebook.ipynb", as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells) == 10
    assert not any(cell.outputs or cell.execution_count for cell in cells)


@pytest.mark.slow
def test_it_goes_from_the_data_to_the_picture(executed):
    notebook, folder = executed
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in cells[2:]:  # after the parameters
        (output,) = cell.outputs
        assert output.output_type in ("display_data", "execute_result"), cell.source
        assert sum(len(str(data)) for data in output.data.values()) < 1_000_000
    trained = next(cell for cell in cells if cell.source == "run = vgx.run(recipe)")
    assert "step 6 of 6" in trained.outputs[0].data["text/plain"]
    with Image.open(folder / "faces.png") as image:
        assert image.size == (182, 182)  # ten of 16 pixels, with 2 around each
    (run,) = (folder / "runs").iterdir()
    assert (run / "evaluation.json").is_file()
