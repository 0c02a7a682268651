"""The manifest of a bundle: what is written, and what is noticed later."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Callable

import pytest

from buildlib import elf, manifest
from buildlib.base import BuildError
from buildlib.elf import Elf

if TYPE_CHECKING:
    from pathlib import Path

ORIGIN = manifest.Origin("1.2.3", "3.11.2", "0123")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    bundle = tmp_path / "bundle"
    (bundle / "_internal").mkdir(parents=True)
    for path, mode in {"cryptpilot": 0o755, "_internal/libfoo.so.1": 0o644, "_internal/empty": 0o644}.items():
        (bundle / path).write_text("" if path.endswith("empty") else path)
        (bundle / path).chmod(mode)
    elves = [
        Elf("cryptpilot", ("libc.so.6",), versions=(("libc.so.6", "GLIBC_2.17"),)),
        Elf("_internal/libfoo.so.1", ("libm.so.6",)),
    ]
    manifest.write(bundle, ORIGIN, elves)
    return bundle


def test_it_says_what_is_there(bundle: Path) -> None:
    table = json.loads((bundle / "manifest.json").read_text())
    assert table["version"] == "1.2.3"
    assert table["minimum_versions"] == {"GLIBC": "2.17"}
    assert table["system_libraries"] == ["libc.so.6", "libm.so.6"]
    assert table["size"] == len("cryptpilot") + len("_internal/libfoo.so.1")
    program = table["files"][-1]
    assert program == {
        "path": "cryptpilot",
        "size": 10,
        "mode": "0755",
        "sha256": "03e6857b32296168f990e449a385fb5889fa4157f4d35aeb474b4591f19bc232",
        "needed": ["libc.so.6"],
    }
    assert "needed" not in table["files"][0]


def test_shells_can_read_what_they_need(bundle: Path) -> None:
    files = (bundle / "manifest.files").read_text().splitlines()
    assert sorted(files) == files
    assert set(files) == {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()}
    assert (bundle / "manifest.libraries").read_text() == "libc.so.6\nlibm.so.6\n"
    assert (bundle / "manifest.libraries-optional").read_text().split() == list(elf.LOADED_LIBRARIES)
    assert {"libgcc_s.so.1", "libnss_dns.so.2"} <= set(elf.LOADED_LIBRARIES)


def test_an_untouched_bundle_is_sound(bundle: Path) -> None:
    assert manifest.differences(bundle) == []
    manifest.require_sound(bundle)


def changed(bundle: Path) -> None:
    (bundle / "_internal/libfoo.so.1").write_text("_internal/libfoo.so.2")  # of the same size


def missing(bundle: Path) -> None:
    (bundle / "_internal/empty").unlink()


def additional(bundle: Path) -> None:
    (bundle / "_internal/evil.so").touch()


def additional_link_to_a_directory(bundle: Path) -> None:
    (bundle / "python3.11").symlink_to("/tmp")  # noqa: S108 - not used


def another_mode(bundle: Path) -> None:
    (bundle / "cryptpilot").chmod(0o775)


def a_link(bundle: Path) -> None:
    (bundle / "copy").write_text("cryptpilot")
    (bundle / "cryptpilot").unlink()
    (bundle / "cryptpilot").symlink_to(bundle.parent / "elsewhere")


def another_list(bundle: Path) -> None:
    (bundle / "manifest.libraries").write_text("libc.so.6\n")


def no_list(bundle: Path) -> None:
    (bundle / "manifest.files").unlink()


@pytest.mark.parametrize(
    ("change", "noticed"),
    [
        (changed, "_internal/libfoo.so.1: has been changed"),
        (missing, "_internal/empty: is missing"),
        (additional, "_internal/evil.so: is not in the manifest"),
        (additional_link_to_a_directory, "python3.11: is not in the manifest"),
        (another_mode, "cryptpilot: has mode 0775, not 0755"),
        (a_link, "cryptpilot: is no regular file"),
        (another_list, "manifest.libraries: does not agree with manifest.json"),
        (no_list, "manifest.files: does not agree with manifest.json"),
    ],
)
def test_every_change_is_noticed(bundle: Path, change: Callable[[Path], None], noticed: str) -> None:
    change(bundle)
    assert noticed in manifest.differences(bundle)
    with pytest.raises(BuildError) as caught:
        manifest.require_sound(bundle)
    assert noticed in caught.value.what


@pytest.mark.parametrize("text", ["", "{", "[1, 2"])
def test_a_damaged_manifest_is_an_error(bundle: Path, text: str) -> None:
    (bundle / "manifest.json").write_text(text)
    with pytest.raises(BuildError, match="damaged"):
        manifest.differences(bundle)


def test_a_directory_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BuildError) as caught:
        manifest.require_sound(tmp_path)
    assert caught.value.hint == f"is {tmp_path} a bundle?"
