"""The license texts of all that a bundle carries, found by its list of contents.

A Python package brings its own along, and so does a source archive; those of a distribution's library are in its
/usr/share/doc. Some name a license and bring no text: these have the common text of that license, and INDEX says so.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import tarfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from buildlib import sbom
from buildlib.base import ROOT, BuildError, cache_directory

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

INDEX = "INDEX"
_TEXT = re.compile(r"(licen[cs]e|copying|notice)[\w.-]*", re.IGNORECASE)
_DOCUMENTATION = Path("/usr/share/doc")
# A component that has the text of a license, for those that have none of their own. Apache-2.0 is our own.
_COMMON = {"MIT": "urllib3", "BSD-3-Clause": "idna"}
_APACHE = "Apache-2.0"
# Of "A OR B" the one that is chosen: the first of these that is in it.
_CHOSEN = (_APACHE, "MIT", "BSD-3-Clause")


def collect(bundle: Path, environment: Path, place: Path) -> None:
    """Put the texts into `place`, a directory a component.

    environment: the virtual environment the bundle was frozen in. Raises BuildError when something has no text.
    """
    components = json.loads(sbom.beside(bundle).read_text(encoding="utf-8"))["components"]
    packages = _packages(environment)
    lines = []
    for component in components:
        texts = list(_texts(component, packages))
        lines.append(_copied(component, texts, place) if texts else _referred(component))
    place.mkdir(parents=True, exist_ok=True)
    (place / INDEX).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def expression(component: dict[str, Any]) -> str:
    """Return what a component is under, in SPDX where it says so; "" where it does not say."""
    found = component.get("licenses", [])
    return " AND ".join(one.get("expression") or one["license"].get("id") or one["license"]["name"] for one in found)


def _packages(environment: Path) -> dict[str, importlib.metadata.Distribution]:
    places = [str(path) for path in environment.glob("lib/python*/site-packages")]
    return {_canonical(one.metadata["Name"]): one for one in importlib.metadata.distributions(path=places)}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _texts(
    component: dict[str, Any], packages: dict[str, importlib.metadata.Distribution]
) -> Iterator[tuple[str, bytes]]:
    """Yield the names and contents of a component's own texts."""
    purl = component.get("purl", "")
    archives = [one["value"] for one in component.get("properties", []) if one["name"] == "source archive"]
    if purl.startswith("pkg:pypi/"):
        distribution = packages.get(_canonical(component["name"]))
        for file in sorted(distribution.files or [], key=str) if distribution else ():
            if ".dist-info" in str(file.parent) and _TEXT.fullmatch(file.name):
                yield file.name, Path(str(file.locate())).read_bytes()
    elif archives:
        yield from _of_archive(cache_directory() / "sources" / archives[0])
    else:
        path = _DOCUMENTATION / component["name"] / "copyright"
        if path.is_file():
            yield f"{component['name']}.txt", path.read_bytes()


def _of_archive(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the texts at the top of a source archive."""
    if not path.is_file():
        raise BuildError(f"{path} is missing: the licenses of what was made from it are in there", "make build")
    with tarfile.open(path) as archive:
        for member in archive:
            name = PurePosixPath(member.name)
            if member.isfile() and len(name.parts) == 2 and _TEXT.fullmatch(name.name):
                file = archive.extractfile(member)
                if file:
                    yield name.name, file.read()


def _copied(component: dict[str, Any], texts: Iterable[tuple[str, bytes]], place: Path) -> str:
    directory = place / component["name"]
    directory.mkdir(parents=True)
    for name, content in texts:
        (directory / name).write_bytes(content)
    return f"{_named(component)}: {component['name']}/"


def _named(component: dict[str, Any]) -> str:
    under = expression(component)
    return f"{component['name']} {component['version']}" + (f", {under}" if under else "")


def _referred(component: dict[str, Any]) -> str:
    """Say where the text of a component without its own is. Raises BuildError when it is nowhere."""
    under = expression(component)
    chosen = next((name for name in _CHOSEN if re.search(rf"\b{re.escape(name)}\b", under)), "")
    if not chosen:
        what = f"{component['name']} {component['version']}"
        raise BuildError(
            f"there is no license text of {what}, which is under: {under or 'it does not say'}",
            "add one to buildlib/distribute/licenses.py: what is carried is distributed under its license",
        )
    return f"{_named(component)}: {'LICENSE' if chosen == _APACHE else f'{_COMMON[chosen]}/'}"


def copy_own(place: Path) -> None:
    """Put cryptpilot's own license into `place`."""
    place.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(ROOT / "LICENSE", place / "LICENSE")
