"""The proof that a bundle starts where it goes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from buildlib import elf
from buildlib.base import BuildError
from buildlib.elf import Elf

if TYPE_CHECKING:
    from collections.abc import Sequence

LOADER = "/lib64/ld-linux-x86-64.so.2"


def faults(*elves: Elf) -> list[str]:
    return elf.faults(elves, "_internal")


def test_a_library_is_found_in_the_bundle_and_on_the_system() -> None:
    libssl = Elf("_internal/libssl.so.3", ("libc.so.6",))
    module = Elf("_internal/lib-dynload/_ssl.so", ("libssl.so.3", "libc.so.6"))
    assert faults(libssl, module) == []


def test_a_missing_library_is_named_with_the_file_that_needs_it() -> None:
    (fault,) = faults(Elf("_internal/lib-dynload/_ssl.so", ("libssl.so.3", "libc.so.6")))
    assert "_internal/lib-dynload/_ssl.so needs libssl.so.3" in fault


def test_the_launcher_is_loaded_before_anybody_points_into_the_bundle() -> None:
    library = Elf("_internal/libfoo.so.1", ())
    launcher = Elf("cryptpilot", ("libfoo.so.1",), interpreter=LOADER)
    (fault,) = faults(library, launcher)
    assert "cryptpilot needs libfoo.so.1" in fault


@pytest.mark.parametrize(
    ("path", "search"),
    [
        ("cryptpilot", "$ORIGIN/_internal"),
        ("cryptpilot", "${ORIGIN}/_internal"),
        ("bin/cryptpilot", "$ORIGIN/../_internal"),
    ],
)
def test_a_search_path_relative_to_the_file_counts(path: str, search: str) -> None:
    library = Elf("_internal/libfoo.so.1", ())
    assert faults(library, Elf(path, ("libfoo.so.1",), interpreter=LOADER, search=(search,))) == []


@pytest.mark.parametrize("search", ["/opt/_internal/sub", "_internal/sub", ""])
def test_a_search_path_of_another_kind_does_not_count(search: str) -> None:
    library = Elf("_internal/sub/libfoo.so.1", ())
    user = Elf("_internal/user.so", ("libfoo.so.1",), search=(search,))
    assert len(faults(library, user)) == 1


@pytest.mark.parametrize(
    "search", [("$ORIGIN/../lib", "$ORIGIN/../.."), ("$ORIGIN/a/$ORIGIN",), ("/usr/lib", "${ORIGIN}/..", "$ORIGIN")]
)
def test_a_search_path_that_dracut_does_not_survive_fails_the_build(search: tuple[str, ...]) -> None:
    (fault,) = faults(Elf("_internal/user.so", (), search=search))
    assert "_internal/user.so has $ORIGIN in its search path more than once" in fault


def test_a_search_path_with_one_place_relative_to_the_file_is_fine() -> None:
    assert faults(Elf("_internal/user.so", (), search=("/usr/lib64", "$ORIGIN/../.."))) == []


def test_a_library_elsewhere_in_the_bundle_is_not_found() -> None:
    assert len(faults(Elf("_internal/sub/libfoo.so.1", ()), Elf("_internal/user.so", ("libfoo.so.1",)))) == 1


def test_the_c_library_must_not_be_bundled() -> None:
    (fault,) = faults(Elf("_internal/libc.so.6", ()))
    assert "_internal/libc.so.6" in fault


def test_the_build_fails_with_every_fault_and_a_next_step() -> None:
    with pytest.raises(BuildError) as caught:
        elf.require_closed([Elf("a.so", ("libx.so.1",)), Elf("b.so", ("liby.so.2",))], "_internal")
    assert "a.so needs libx.so.1" in caught.value.what
    assert "b.so needs liby.so.2" in caught.value.what
    assert "EXCLUDED in buildlib/agent.spec" in caught.value.hint


def test_system_libraries_are_those_needed_and_not_bundled() -> None:
    elves = [Elf("a.so", ("libm.so.6", "libfoo.so.1")), Elf("b.so", ("libc.so.6", "libm.so.6"))]
    assert elf.system_libraries(elves) == ["libc.so.6", "libm.so.6"]


@pytest.mark.parametrize(
    ("versions", "least"),
    [
        (["GLIBC_2.2.5", "GLIBC_2.36", "GLIBC_2.4"], {"GLIBC": "2.36"}),
        (["GLIBC_2.9", "GLIBC_2.10"], {"GLIBC": "2.10"}),
        (["GLIBC_2.17", "GLIBC_ABI_DT_RELR"], {"GLIBC": "2.36"}),
        ([], {}),
    ],
)
def test_the_least_glibc_is_the_highest_version_needed(versions: Sequence[str], least: dict[str, str]) -> None:
    elves = [Elf(f"{version}.so", (), versions=(("libc.so.6", version),)) for version in versions]
    assert elf.minimum_versions(elves) == least


def test_versions_of_bundled_libraries_ask_nothing_of_the_system() -> None:
    assert elf.minimum_versions([Elf("_ssl.so", (), versions=(("libssl.so.3", "OPENSSL_3.0.0"),))]) == {}


def test_private_symbols_of_the_c_library_fail_the_build() -> None:
    with pytest.raises(BuildError, match=r"a\.so needs GLIBC_PRIVATE of libc\.so\.6"):
        elf.minimum_versions([Elf("a.so", (), versions=(("libc.so.6", "GLIBC_PRIVATE"),))])


def compile_library(directory: Path, name: str, source: str, *options: str) -> Path:
    made = directory / name
    made.parent.mkdir(exist_ok=True)
    command = ["gcc", "-shared", "-fPIC", "-x", "c", "-", f"-Wl,-soname={name}", "-o", str(made), *options]
    subprocess.run(command, input=source, text=True, check=True)
    return made


@pytest.mark.needs("gcc")
def test_real_files(tmp_path: Path) -> None:
    inner = compile_library(tmp_path, "libinner.so.1", "int inner(void) { return 1; }")
    outer = compile_library(
        tmp_path,
        "outer.so",
        '#include <stdlib.h>\nint inner(void);\nint outer(void) { return inner() + atoi(getenv("X")); }',
        f"-L{tmp_path}",
        "-l:libinner.so.1",
        "-Wl,-rpath,/usr/lib64:$ORIGIN",
    )
    inside = [elf.read(inner, "_internal/libinner.so.1"), elf.read(outer, "_internal/outer.so")]
    both = [found for found in inside if found]
    assert set(both[1].needed) == {"libinner.so.1", "libc.so.6"}
    assert both[1].search == ("/usr/lib64", "$ORIGIN")
    assert both[1].interpreter == ""
    assert "GLIBC" in elf.minimum_versions(both)
    elf.require_closed(both, "_internal")
    with pytest.raises(BuildError, match=r"_internal/outer\.so needs libinner\.so\.1"):
        elf.require_closed(both[1:], "_internal")


def test_a_program_is_told_from_a_library() -> None:
    program = shutil.which("true")
    assert program
    found = elf.read(Path(program), "true")
    assert found
    assert "ld-" in found.interpreter


def test_what_is_no_elf_file_has_no_facts(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("#!/bin/sh\n")
    (tmp_path / "empty").touch()
    assert elf.read(tmp_path / "text", "text") is None
    assert elf.read(tmp_path / "empty", "empty") is None


def test_a_damaged_elf_file_fails_the_build(tmp_path: Path) -> None:
    (tmp_path / "half.so").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(3))
    with pytest.raises(BuildError, match=r"half\.so"):
        elf.read(tmp_path / "half.so", "half.so")


@pytest.mark.parametrize(
    ("library", "version", "fault"),
    [
        ("libc.so.6", "GLIBC_2.29", "a.so needs GLIBC 2.29, and the floor is 2.28"),
        ("libm.so.6", "GLIBC_2.100", "a.so needs GLIBC 2.100, and the floor is 2.28"),
        ("libc.so.6", "GLIBC_ABI_DT_RELR", "a.so needs GLIBC 2.36, and the floor is 2.28"),
        ("libz.so.1", "ZLIB_1.2.12", "a.so needs ZLIB 1.2.12, and the floor is 1.2.9"),
        ("libgcc_s.so.1", "GCC_7.0.0", "a.so needs GCC 7.0.0, and the floor is 4.2.0"),
        ("libm.so.6", "NEW_1", "a.so needs NEW 1, and the floor is none of it"),
    ],
)
def test_what_the_oldest_system_lacks_fails_the_build(library: str, version: str, fault: str) -> None:
    fine = Elf("b.so", (), versions=(("libc.so.6", "GLIBC_2.28"), ("libz.so.1", "ZLIB_1.2.9"), ("libx.so", "X_9")))
    elf.require_floor([fine])
    newer = Elf("a.so", (), versions=(("libc.so.6", "GLIBC_2.2.5"), (library, version)))
    assert elf.above_floor([fine, newer]) == [fault]
    with pytest.raises(BuildError, match=fault) as caught:
        elf.require_floor([fine, newer])
    assert "buildlib/elf.py" in caught.value.hint


@pytest.mark.needs("gcc")
def test_a_program_of_a_newer_system_fails_the_build(tmp_path: Path) -> None:
    subprocess.run(
        ["gcc", "-x", "c", "-", "-o", tmp_path / "newer"], input="int main(void) {}", text=True, check=True
    )  # on glibc 2.34 and newer main is started by a symbol of that version
    found = elf.read(tmp_path / "newer", "newer")
    assert found
    with pytest.raises(BuildError, match=r"newer needs GLIBC 2\.\d+, and the floor is 2\.28"):
        elf.require_floor([found])
