"""The archives of a bundle: which modules are in them. Uses: PyInstaller, to look into its own."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_LAUNCHED = ".pkg"
_STARTED_WITH = "base_library.zip"


def is_archive(path: Path) -> bool:
    """Tell whether a file of a bundle is one that holds modules."""
    return path.suffix == _LAUNCHED or path.name == _STARTED_WITH


def members(path: Path) -> dict[str, bytes]:
    """Return what an archive holds, by name: modules as "google.protobuf.message", in the order they have there."""
    if path.suffix == _LAUNCHED:
        return _members_of_package(path)
    with zipfile.ZipFile(path) as archive:
        return {_module(name): archive.read(name) for name in archive.namelist()}


def _module(name: str) -> str:
    return name.removesuffix(".pyc").removesuffix("/__init__").replace("/", ".")


def _members_of_package(path: Path) -> dict[str, bytes]:
    """Read PyInstaller's archive: the scripts it starts with, and within it another one with the modules."""
    from PyInstaller.archive.readers import CArchiveReader

    outer = CArchiveReader(str(path))
    found = {}
    for name in outer.toc:
        if name.endswith(".pyz"):
            inner = outer.open_embedded_archive(name)
            found.update({module: inner.extract(module, raw=True) or b"" for module in inner.toc})
        else:
            found[name] = outer.extract(name)
    return found


def sort(path: Path) -> None:
    """Write a zip file again, with what it holds in alphabetical order and without times."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in sorted(archive.namelist())}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name), content)
