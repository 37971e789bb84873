"""Names of the first edition that plugins may use: they work, and say what to write."""

from __future__ import annotations

import subprocess
import sys

import pytest

import vgx


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("vgx.components:Loss", "vgx:Loss"),
        ("vgx.components:Weight", "vgx:Weight"),
        ("vgx.components:validate", "vgx.parts.base:validate"),
        ("vgx.components:Gauge", "vgx:MetricState"),
        ("vgx.registry:Plugin", "vgx:Plugin"),
    ],
)
def test_an_old_path_gives_the_same_thing_with_a_warning(old, new):
    (module, name), (new_module, new_name) = old.split(":"), new.split(":")
    program = (
        "import warnings\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        f"    from {module} import {name} as old\n"
        f"from {new_module} import {new_name} as new\n"
        "assert old is new\n"
        "assert caught[0].category is DeprecationWarning, caught\n"
        f"assert '{module} is ' in str(caught[0].message)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("old", "new"),
    [("Drawer", "LatentSampler"), ("Gauge", "MetricState"), ("Journal", "OpenTracker")],
)
def test_an_old_name_is_the_new_one_with_a_warning(old, new):
    with pytest.warns(DeprecationWarning, match=f"vgx.{old} is vgx.{new} now"):
        assert getattr(vgx, old) is getattr(vgx, new)
