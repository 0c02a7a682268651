"""The list of all that a bundle carries: that it is true, whole and in the form that it claims."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from buildlib import archive, sbom, sources
from buildlib.base import ROOT, BuildError

if TYPE_CHECKING:
    from collections.abc import Iterator

Table = dict[str, Any]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("listed")
    command: list[str | Path] = [sys.executable, ROOT / "build.py", "freeze", "--output", output]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return output / "cryptpilot"


@pytest.fixture(scope="module")
def table(bundle: Path) -> Table:
    loaded: Table = json.loads(sbom.beside(bundle).read_text())
    return loaded


def every(table: Table) -> Iterator[Table]:
    yield table["metadata"]["component"]
    yield from below(table)


def below(table: Table) -> Iterator[Table]:
    yield from table["components"]


def locations(component: Table) -> set[str]:
    return {occurrence["location"] for occurrence in component.get("evidence", {}).get("occurrences", ())}


def holder(table: Table, location: str) -> str:
    """Return the name of the component that a file or module belongs to."""
    (name,) = (one["name"] for one in every(table) if location in locations(one))
    return str(name)


@pytest.mark.slow
def test_it_is_in_the_form_that_it_claims(bundle: Path) -> None:
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(sbom.beside(bundle).read_text())
    assert error is None


@pytest.mark.slow
def test_all_that_is_in_the_bundle_is_in_the_list_and_nothing_else(bundle: Path, table: Table) -> None:
    carried = set()
    for path in bundle.rglob("*"):
        name = str(path.relative_to(bundle))
        if archive.is_archive(path):
            carried |= {f"{name}/{module}" for module, content in archive.members(path).items() if content}
        elif path.is_file() and not name.startswith("manifest."):
            carried.add(name)
    assert len([name for name in carried if name.endswith(".so")]) > 5
    assert len([name for name in carried if name.startswith("cryptpilot.pkg/")]) > 300
    assert set().union(*map(locations, every(table))) == carried


@pytest.mark.slow
def test_no_component_is_there_without_a_reason(table: Table) -> None:
    for component in every(table):
        assert locations(component), component["name"]


@pytest.mark.slow
def test_what_is_there_belongs_to_whom_it_is_from(table: Table) -> None:
    found = {
        location: holder(table, location)
        for location in (
            "cryptpilot",
            "cryptpilot.pkg/__main__",
            "cryptpilot.pkg/cryptpilot_boot.providers.kms_sdk",
            "cryptpilot.pkg/google.protobuf.message",
            "cryptpilot.pkg/Tea.core",
            "cryptpilot.pkg/pyimod01_archive",
        )
    }
    assert found == {
        "cryptpilot": "pyinstaller",
        "cryptpilot.pkg/__main__": "cryptpilot",
        "cryptpilot.pkg/cryptpilot_boot.providers.kms_sdk": "cryptpilot",
        "cryptpilot.pkg/google.protobuf.message": "protobuf",
        "cryptpilot.pkg/Tea.core": "alibabacloud-tea",
        "cryptpilot.pkg/pyimod01_archive": "pyinstaller",
    }
    (python,) = (one for one in below(table) if one["name"] == "CPython")
    standard = locations(python)
    assert {"_internal/base_library.zip/codecs", "cryptpilot.pkg/ssl"} <= standard
    assert any(location.startswith("_internal/libpython") for location in standard)


@pytest.mark.slow
def test_packages_have_the_versions_and_hashes_of_the_locks(table: Table) -> None:
    locks = "".join((ROOT / f"requirements/{name}.lock").read_text() for name in ("agent", "build"))
    entries = dict(re.findall(r"^(\S+==\S+)[^\n]*((?:\n +--hash[^\n]*)+)", locks, re.MULTILINE))
    found = [one for one in table["components"] if one["purl"].startswith("pkg:pypi/")]
    assert len(found) > 15
    for component in found:
        (sha256,) = (one["content"] for one in component["hashes"])
        assert sha256 in entries[f"{component['name']}=={component['version']}"]


@pytest.mark.slow
def test_every_library_has_a_version(table: Table) -> None:
    for component in every(table):
        assert component["type"] == "file" or component["version"], component["name"]


@pytest.mark.slow
def test_nothing_is_compiled_but_here(table: Table, tmp_path: Path) -> None:
    """What a package's makers linked into it cannot be known."""
    compiled = {one["name"] for one in below(table) if any(".so" in location for location in locations(one))}
    assert compiled == {"CPython", "OpenSSL", "libffi"}
    (tmp_path / "x.dist-info").mkdir()
    (tmp_path / "x.dist-info/RECORD").write_text("_rust.abi3.so,,\n")
    owners = sbom.Owners({}, importlib.metadata.distributions(path=[str(tmp_path)]))
    with pytest.raises(BuildError, match=r"_internal/_rust\.abi3\.so is compiled code of a package"):
        owners.place({}, "_internal/_rust.abi3.so", tmp_path / "_rust.abi3.so", tmp_path)


@pytest.mark.slow
def test_what_was_compiled_is_named_with_its_source(table: Table) -> None:
    found = {one["name"]: one for one in below(table) if one["name"] in {"CPython", "OpenSSL", "libffi"}}
    for source in (sources.PYTHON, sources.OPENSSL, sources.LIBFFI):
        one = found[source.name]
        assert one["version"] == source.version
        assert one["licenses"] == [{"license": {"id": source.license}}]
        assert one["hashes"] == [{"alg": "SHA-256", "content": source.sha256}]
    assert locations(found["OpenSSL"]) == {"_internal/libcrypto.so.3", "_internal/libssl.so.3"}
    (ctypes,) = locations(found["libffi"])
    assert "/_ctypes." in ctypes
    assert "file" not in {one["type"] for one in below(table)}


@pytest.mark.slow
def test_it_needs_what_its_packages_need(table: Table) -> None:
    needs = {one["ref"]: one["dependsOn"] for one in table["dependencies"]}
    names = {one["bom-ref"]: one["name"] for one in every(table)}
    edges = {(names[reference], names[other]) for reference, others in needs.items() for other in others}
    assert {("requests", "urllib3"), ("alibabacloud-dkms-gcs", "protobuf"), ("cryptpilot", "CPython")} <= edges
    reached, new = set(), {"cryptpilot"}
    while new:
        reached |= new
        new = {other for name, other in edges if name in new} - reached
    assert {one["name"] for one in table["components"]} <= reached


@pytest.mark.slow
def test_it_names_its_bundle_and_no_other(bundle: Path, table: Table, tmp_path: Path) -> None:
    digest = hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()
    assert digest in json.dumps(table["metadata"]["properties"])
    assert sbom.is_of(sbom.beside(bundle), bundle)
    (tmp_path / "manifest.json").write_text("{}")
    assert not sbom.is_of(sbom.beside(bundle), tmp_path)


@pytest.mark.slow
def test_no_place_of_the_build_machine_is_in_it(bundle: Path) -> None:
    text = sbom.beside(bundle).read_text()
    for place in (ROOT, Path.home(), Path(sys.prefix)):
        assert f"{place}/" not in text
    assert "file://" not in text


@pytest.mark.parametrize(
    ("expression", "text", "classifiers", "expected"),
    [
        ("MIT-0", "ignored", [], [{"expression": "MIT-0"}]),
        ("", "MIT", [], [{"expression": "MIT"}]),
        ("", "Apache License 2.0", [], [{"expression": "Apache-2.0"}]),
        ("", "Mine\n\nall of it", [], [{"license": {"name": "Mine"}}]),
        ("", "", ["Topic :: X", "License :: OSI Approved :: ISC"], [{"license": {"name": "ISC"}}]),
        ("", "", [], []),
    ],
)
def test_licenses(expression: str, text: str, classifiers: list[str], expected: list[Table]) -> None:
    assert sbom.licenses(expression, text, classifiers) == expected


def test_names_of_python_packages() -> None:
    assert sbom.normalized("alibabacloud_Tea.util") == "alibabacloud-tea-util"
