"""Import paths of the first edition that plugins may use: they work, and say what to write."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("old", "name", "new"),
    [
        ("vgx.components", "Loss", "vgx"),
        ("vgx.components", "Weight", "vgx"),
        ("vgx.components", "KINDS", "vgx.parts.kinds"),
        ("vgx.components", "validate", "vgx.parts.base"),
        ("vgx.components", "STRICT", "vgx.parts.values"),
        ("vgx.registry", "Plugin", "vgx"),
    ],
)
def test_an_old_path_gives_the_same_thing_with_a_warning(old, name, new):
    program = (
        "import warnings\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        f"    from {old} import {name} as old\n"
        f"from {new} import {name} as new\n"
        "assert old is new\n"
        "assert caught[0].category is DeprecationWarning, caught\n"
        f"assert '{old} is ' in str(caught[0].message)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
