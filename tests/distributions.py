"""Distributions as pip leaves them where Python finds them: metadata, and entry points of vgx."""

from __future__ import annotations

import importlib.metadata
import sysconfig


def lay(folder, name, version, points):
    """Write the metadata of a distribution with these entry points, {name: module}."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n")
    lines = ["[vgx]", *(f"{point} = {module}" for point, module in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return info


def remember():
    """Read the entry points of what pip has installed once; tests lay theirs in other folders."""
    read, installed = importlib.metadata.Distribution.entry_points.fget, {}
    site = sysconfig.get_path("purelib")

    def entry_points(distribution):
        if str(distribution.locate_file("")) != site:
            return read(distribution)
        folder = distribution._path  # its name would be read from a file
        if folder not in installed:
            installed[folder] = read(distribution)
        return installed[folder]

    importlib.metadata.Distribution.entry_points = property(entry_points)
