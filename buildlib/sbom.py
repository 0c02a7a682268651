"""The list of all that a bundle carries (a software bill of materials, CycloneDX 1.6), read from the bundle itself.

What is not in the bundle is not in the list, whatever the lock files name. Every file of the bundle and every module in
its archives is an occurrence of the component it comes from. It holds no time and no number made up, so the same bundle
has the same list.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib.metadata
import json
import re
import sysconfig
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from buildlib import archive, manifest, sources
from buildlib.base import ROOT, BuildError, digest_of_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from buildlib.elf import Elf

Table = dict[str, Any]

_APPLICATION = "cryptpilot"
_PYTHON = "python"
_PYPI = "pkg:pypi/"
_OF_THE_MANIFEST = "cryptpilot:manifest.json:sha256"

# Texts that packages put where an SPDX expression would be.
_LICENSES = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache License 2.0": "Apache-2.0",
    "GPLv2-or-later with a special exception which allows to use PyInstaller to build and distribute non-free programs"
    " (including commercial ones)": "GPL-2.0-or-later WITH Bootloader-exception",
}
_EXPRESSIONS = frozenset({"MIT", "MPL-2.0", *_LICENSES.values()})


@dataclasses.dataclass
class Component:
    """Something that the bundle carries.

    table: as CycloneDX has it. reference: its name within the list. locations: files of the bundle, and modules within
    its archives as FILE/MODULE. needs: references of others.
    """

    reference: str
    table: Table
    locations: list[str] = dataclasses.field(default_factory=list)
    needs: set[str] = dataclasses.field(default_factory=set)


def name(bundle: str) -> str:
    """Return the file name that the list of a bundle of this name has."""
    return f"{bundle}.cdx.json"


def beside(bundle: Path) -> Path:
    """Return where the list of a bundle is: beside it, as an initrd has no use for it."""
    return bundle.with_name(name(bundle.name))


def write(place: Path, bundle: Path, work: Path, installed: Path, elves: Sequence[Elf]) -> None:
    """Write the list of a finished bundle that was frozen in this environment.

    work: where PyInstaller has its notes. installed: what pip says of the environment's packages, as JSON.
    Raises BuildError when it is not known where something in the bundle comes from.
    """
    table = manifest.load(bundle)
    origins = _origins(bundle, work)
    owners = Owners(_hashes(installed), importlib.metadata.distributions())
    application = Component(_APPLICATION, _application_table(table["version"]))
    components: dict[str, Component] = {}
    for location, source in origins.items():
        if ROOT in source.parents or work in source.parents:
            application.locations.append(location)
        else:
            owners.place(components, location, source, bundle)
    _add_needs(application, components, elves)
    place.write_text(
        json.dumps(_document(application, components, digest_of_file(bundle / manifest.MANIFEST)), indent=1)
    )
    place.chmod(0o644)


def is_of(place: Path, bundle: Path) -> bool:
    """Tell whether a list is that of a bundle."""
    try:
        properties = json.loads(place.read_text())["metadata"]["properties"]
    except (OSError, ValueError, KeyError):
        return False
    return {"name": _OF_THE_MANIFEST, "value": digest_of_file(bundle / manifest.MANIFEST)} in properties


def _origins(bundle: Path, work: Path) -> dict[str, Path]:
    """Return all that is in a bundle with the file it was made from."""
    collected = {}
    for target, source, kind in ast.literal_eval((work / "agent/COLLECT-00.toc").read_text())[0]:
        collected[target if kind in {"EXECUTABLE", "PKG"} else f"_internal/{target}"] = Path(source)
    pyinstaller = _package_directory("PyInstaller")
    places = [
        Path(sysconfig.get_path("stdlib")),
        Path(sysconfig.get_path("purelib")),
        Path(sysconfig.get_path("platlib")),
        ROOT,
        ROOT / "cryptpilot_boot",  # __main__
        ROOT / "buildlib",  # quick_start
        work / "agent",  # quick_tables
        pyinstaller / "loader",
        pyinstaller / "hooks/rthooks",
        _package_directory("_pyinstaller_hooks_contrib") / "rthooks",
    ]
    found: dict[str, Path] = {}
    for entry in manifest.load(bundle)["files"]:
        location = entry["path"]
        if archive.is_archive(bundle / location):
            for module, content in archive.members(bundle / location).items():
                if content:  # a namespace package is a name and nothing else
                    found[f"{location}/{module}"] = _source(module, places)
        elif location == _APPLICATION:
            (found[location],) = pyinstaller.glob("bootloader/Linux-*/run")
        else:
            found[location] = collected[location]
    return found


def _package_directory(name: str) -> Path:
    return Path(sysconfig.get_path("purelib")) / name


def _source(module: str, places: Iterable[Path]) -> Path:
    path = module.replace(".", "/")
    for place in places:
        for candidate in (place / f"{path}.py", place / path / "__init__.py"):
            if candidate.is_file():
                return candidate
    raise BuildError(f"it is not known where the module {module} in the bundle comes from", "see buildlib/sbom.py")


class Owners:
    """Finds the component that a file belongs to. hashes: of archives, by the names of packages."""

    def __init__(self, hashes: Mapping[str, str], distributions: Iterable[importlib.metadata.Distribution]) -> None:
        self._hashes = hashes
        self._standard = Path(sysconfig.get_path("stdlib"))
        self._distributions = {
            Path(str(distribution.locate_file(file))): distribution
            for distribution in distributions
            for file in distribution.files or ()
        }

    def place(self, components: dict[str, Component], location: str, source: Path, bundle: Path) -> None:
        """Add what is at `location`, made from `source`, to the component it belongs to."""
        distribution = self._distributions.get(source)
        if distribution:
            if ".so" in source.suffixes:
                raise BuildError(
                    f"{location} is compiled code of a package: what is linked into it would not be in the list",
                    "leave it out in buildlib/agent.spec",
                )
            component = _of_distribution(distribution, self._hashes)
        elif self._standard in source.parents or source.name.startswith("libpython"):
            component = _of_source(sources.PYTHON, _PYTHON)
        elif source.parent == self._standard.parent:
            component = _of_source(sources.OPENSSL)
        else:
            component = _of_file(location, bundle)
        component = components.setdefault(component.reference, component)
        component.locations.append(location)
        if component.reference == _PYTHON and source.name.startswith("_ctypes."):
            libffi = _of_source(sources.LIBFFI)
            libffi.locations.append(location)
            components[libffi.reference] = libffi
            component.needs.add(libffi.table["name"])


def _application_table(version: str) -> Table:
    return {
        "type": "application",
        "name": _APPLICATION,
        "version": version,
        "licenses": [{"license": {"id": "Apache-2.0"}}],
        "purl": f"pkg:generic/{_APPLICATION}@{version}",
    }


def _of_source(source: sources.Source, reference: str = "") -> Component:
    """Return the component that was compiled from a source archive; the hash is the archive's."""
    table: Table = {
        "type": "platform" if source is sources.PYTHON else "library",
        "name": source.name,
        "version": source.version,
        "hashes": [{"alg": "SHA-256", "content": source.sha256}],
        "licenses": [{"license": {"id": source.license}}],
        "cpe": source.cpe,
        "purl": source.purl,
        "properties": [{"name": "source archive", "value": source.file}],
    }
    return Component(reference or source.purl, {key: value for key, value in table.items() if value})


def _of_file(location: str, bundle: Path) -> Component:
    hashes = [{"alg": "SHA-256", "content": digest_of_file(bundle / location)}]
    return Component(f"file:{location}", {"type": "file", "name": location, "hashes": hashes})


def _of_distribution(distribution: importlib.metadata.Distribution, hashes: Mapping[str, str]) -> Component:
    metadata = distribution.metadata
    name = normalized(metadata["Name"])
    table: Table = {"type": "library", "name": name, "version": distribution.version}
    if name in hashes:
        table["hashes"] = [{"alg": "SHA-256", "content": hashes[name]}]
    table["licenses"] = licenses(
        "".join(metadata.get_all("License-Expression") or []),
        "".join(metadata.get_all("License") or []),
        metadata.get_all("Classifier") or [],
    )
    table["purl"] = f"{_PYPI}{name}@{distribution.version}"
    component = Component(table["purl"], {key: value for key, value in table.items() if value})
    for text in distribution.requires or ():
        if "extra ==" not in text and (match := re.match(r"[\w.-]+", text)):
            component.needs.add(normalized(match[0]))
    return component


def normalized(name: str) -> str:
    """Return the name of a Python package as indexes have it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def licenses(expression: str, text: str, classifiers: Sequence[str]) -> list[Table]:
    """Turn what a Python package says of its license into what CycloneDX has for that."""
    text = _LICENSES.get(text, text).split("\n")[0].strip()
    if expression or text in _EXPRESSIONS:
        return [{"expression": expression or text}]
    if text:
        return [{"license": {"name": text}}]
    found = [line.rsplit(" :: ", 1)[1] for line in classifiers if line.startswith("License :: ")]
    return [{"license": {"name": name}} for name in found]


def _hashes(installed: Path) -> dict[str, str]:
    """Return by name the SHA-256 of the file that pip took each package from: one of those that the lock allows."""
    report = json.loads(installed.read_text())
    return {
        normalized(entry["metadata"]["name"]): entry["download_info"]["archive_info"]["hashes"]["sha256"]
        for entry in report["install"]
    }


def _add_needs(application: Component, components: Mapping[str, Component], elves: Sequence[Elf]) -> None:
    """Turn names of packages into references, and add the libraries that compiled modules are linked with."""
    names = {component.table["name"]: reference for reference, component in components.items()}
    for component in components.values():
        component.needs = {names[name] for name in component.needs if name in names}
    # a library that was linked into a module of Python is the module's part, and not what needs other libraries
    linked = sorted(components.values(), key=lambda component: component.reference == _PYTHON)
    holders = {location: component for component in linked for location in component.locations}
    for one in elves:
        holder, needed = holders.get(one.path), [holders.get(f"_internal/{library}") for library in one.needed]
        if holder:
            holder.needs |= {component.reference for component in needed if component} - {holder.reference}
    wanted = {reference for component in components.values() for reference in component.needs}
    application.needs = set(components) - wanted | {_PYTHON}


def _document(application: Component, components: Mapping[str, Component], manifest_sha256: str) -> Table:
    listed = [components[reference] for reference in sorted(components)]
    every = [application, *listed]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.UUID(hex=manifest_sha256[:32], version=5)}",
        "version": 1,
        "metadata": {
            "lifecycles": [{"phase": "build"}],
            "component": _table(application),
            "properties": [{"name": _OF_THE_MANIFEST, "value": manifest_sha256}],
        },
        "components": [_table(component) for component in listed],
        "dependencies": [
            {"ref": one.reference, "dependsOn": sorted(one.needs)}
            for one in sorted(every, key=lambda one: one.reference)
            if one.needs or one is application
        ],
    }


def _table(component: Component) -> Table:
    table: Table = {**component.table, "bom-ref": component.reference}
    if component.locations:
        table["evidence"] = {"occurrences": [{"location": location} for location in sorted(component.locations)]}
    return table
