"""Distributions as pip leaves them where Python finds them: metadata, and entry points of vgx."""

from __future__ import annotations


def lay(folder, name, version, points):
    """Write the metadata of a distribution with these entry points, {name: module}."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n")
    lines = ["[vgx]", *(f"{point} = {module}" for point, module in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return info
