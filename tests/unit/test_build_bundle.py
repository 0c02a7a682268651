"""The frozen agent itself, as build.py makes it or has it in its cache; and build.py's command line."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PyInstaller.archive.readers import CArchiveReader

import cryptpilot_boot
from buildlib import elf, freeze, interpreter, precompute, reproduce, venv
from buildlib.base import ROOT, BuildError

# The bundle is frozen first, and what it is frozen with compiled.
pytestmark = pytest.mark.slow

Finished = subprocess.CompletedProcess


def build(*arguments: str | Path, cwd: Path = ROOT) -> Finished[str]:
    command = [sys.executable, ROOT / "build.py", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def elves(bundle: Path) -> list[elf.Elf]:
    files = [path for path in bundle.rglob("*") if path.is_file()]
    return [found for path in files if (found := elf.read(path, str(path.relative_to(bundle))))]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("frozen")
    done = build("freeze", "--output", output)
    assert done.returncode == 0, done.stderr
    assert "as the manifest has them" in done.stdout
    return output / "cryptpilot"


def test_it_runs_through_a_link_and_with_nothing_around_it(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "cryptpilot").symlink_to(bundle / "cryptpilot")
    done = subprocess.run(
        [tmp_path / "cryptpilot", "--version"], env={}, cwd="/", capture_output=True, text=True, check=False
    )
    assert done.stdout == f"cryptpilot {cryptpilot_boot.__version__}\n"


@pytest.mark.parametrize("locale", ["C", "zh_CN.GB18030"])
def test_it_speaks_utf8_whatever_the_locale(bundle: Path, tmp_path: Path, locale: str) -> None:
    # compiled here, as few machines have it; without localedef it does not exist, and that has to work too
    command = ["localedef", "-i", "zh_CN", "-f", "GB18030", str(tmp_path / "zh_CN.GB18030")]
    if shutil.which("localedef"):
        subprocess.run(command, capture_output=True, check=False)
    done = subprocess.run(
        [bundle / "cryptpilot", "--config-dir", tmp_path / "größe", "show"],
        env={"LC_ALL": locale, "LOCPATH": str(tmp_path)},
        capture_output=True,
        check=False,
    )
    assert "größe: no such configuration directory".encode() in done.stderr


def test_no_place_of_the_build_machine_is_in_it(bundle: Path) -> None:
    own = [path for path in bundle.rglob("*") if path.suffix in {".pkg", ".json", ".files", ".zip"}]
    for path in own:
        assert str(ROOT).encode() not in path.read_bytes(), path
        assert str(Path.home()).encode() + b"/" not in path.read_bytes(), path


STAND_INS = ("buildlib/distribute", "tests", "tests/kms", "tests/kbs")
"""What a build imports beside what is frozen."""


def test_another_build_gives_the_same_bytes(bundle: Path, tmp_path: Path) -> None:
    checkout = tmp_path / "a checkout elsewhere"
    used = [
        ROOT / "build.py",
        *(path for place in STAND_INS for path in (ROOT / place).glob("*.py")),
        *(ROOT / "tests/kms").glob("*.json"),
    ]
    for path in [*freeze.sources(), *used]:
        copy = checkout / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    # Interpreter and environment may be the same, which saves minutes; nothing that was frozen from them is.
    python = interpreter.interpreter()
    (tmp_path / "cache").mkdir()
    for kept in (python.path.parent.parent, venv.environment("build", python)):
        (tmp_path / "cache" / kept.name).symlink_to(kept)
    second = reproduce.build(checkout, tmp_path / "cache", tmp_path / "dist")
    assert [path.name for path in (tmp_path / "cache").glob("bundle-*/*") if path.is_dir()] == ["cryptpilot"]
    assert reproduce.differences(bundle.parent, second.parent) == []


def test_what_differs_between_two_builds_is_named(bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(bundle, tmp_path / "cryptpilot")
    (copy / "_internal/libssl.so.3").write_text("one more")
    (copy / "cryptpilot").chmod(0o700)
    (copy / "manifest.libraries").unlink()
    (copy / "new").touch()
    with zipfile.ZipFile(copy / "_internal/base_library.zip", "a") as archive:
        archive.writestr("encodings/klingon.pyc", b"")
    reader = CArchiveReader(str(copy / "cryptpilot.pkg"))
    with (copy / "cryptpilot.pkg").open("r+b") as package:
        package.seek(reader._start_offset + reader.toc["__main__"][0])
        package.write(b"?")
    size = (bundle / "_internal/libssl.so.3").stat().st_size
    assert reproduce.differences(bundle, copy) == [
        "_internal/base_library.zip: differs in encodings.klingon",
        f"_internal/libssl.so.3: has {size} bytes and 8, which are not the same",
        "cryptpilot.pkg: differs in __main__",
        "cryptpilot: has mode 0755 and 0700",
        f"manifest.libraries: is in {bundle} alone",
        f"new: is in {copy} alone",
    ]


def test_what_is_beside_the_bundle_is_made_anew_too(bundle: Path) -> None:
    digests = bundle.parent / freeze.DIGESTS
    before = digests.read_text()
    assert before.startswith(hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest())
    digests.write_text(before.replace("a", "b"))
    assert build("freeze", "--output", bundle.parent).returncode == 0
    assert digests.read_text() == before


def test_a_library_taken_away_is_missed(bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(bundle, tmp_path / "copy")
    (library,) = copy.glob("_internal/libssl.so*")
    library.unlink()
    with pytest.raises(BuildError, match=rf"_ssl\.\S+ needs {library.name}"):
        elf.require_closed(elves(copy), "_internal")


def test_a_library_of_the_build_machine_is_noticed(bundle: Path) -> None:
    """Debian 12's libgcc_s needs glibc 2.35, and comes along where the system's is not left to the system."""
    (library,) = Path("/usr/lib").glob("*/libgcc_s.so.1")
    found = elf.read(library, "_internal/libgcc_s.so.1")
    assert found
    with pytest.raises(BuildError, match=r"libgcc_s\.so\.1 needs GLIBC 2\.\d+, and the floor is"):
        elf.require_floor([*elves(bundle), found])


def test_a_second_freeze_does_nothing(bundle: Path) -> None:
    before = (bundle / "manifest.json").stat()
    done = build("freeze", "--output", bundle.parent)
    assert done.returncode == 0
    assert done.stderr == ""
    assert (bundle / "manifest.json").stat().st_ino == before.st_ino


def test_a_spoilt_bundle_is_laid_out_anew(bundle: Path) -> None:
    (bundle / "cryptpilot").write_text("spoilt")
    assert build("verify", bundle).returncode == 1
    assert build("freeze", "--output", bundle.parent).returncode == 0
    done = build("verify", bundle)
    assert (done.returncode, done.stderr) == (0, "")


def test_verify_says_what_is_wrong(bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(bundle, tmp_path / "copy")
    (copy / "_internal/base_library.zip").unlink()
    done = build("verify", copy)
    assert done.returncode == 1
    assert "build.py: error:" in done.stderr
    assert "_internal/base_library.zip: is missing" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_installed_command_runs(bundle: Path, tmp_path: Path) -> None:
    done = build("install", "--bundle", bundle, "--destdir", tmp_path)
    assert done.returncode == 0, done.stderr
    version = subprocess.run([tmp_path / "usr/bin/cryptpilot", "--version"], capture_output=True, check=True)
    assert version.stdout.startswith(b"cryptpilot ")
    assert build("verify", tmp_path / "usr/libexec/cryptpilot").returncode == 0


def test_the_manifest_names_the_bundle_s_origin(bundle: Path) -> None:
    table = json.loads((bundle / "manifest.json").read_text())
    assert table["version"] == cryptpilot_boot.__version__
    assert set(table["system_libraries"]) <= elf.SYSTEM_LIBRARIES
    assert table["minimum_versions"]["GLIBC"] in {"2.28", "2.27", "2.26", "2.25"}
    assert table["minimum_versions"].keys() <= elf.FLOOR.keys()
    assert table["size"] == sum(entry["size"] for entry in table["files"])


def test_installing_what_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    done = build("install", "--bundle", tmp_path / "none", "--destdir", tmp_path)
    assert done.returncode == 1
    assert "build.py freeze" in done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["freeze", "--help"], ["install", "--help"], ["lock", "--help"]])
def test_help(arguments: list[str]) -> None:
    done = build(*arguments)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: build.py")


def test_wrong_usage_exits_with_2() -> None:
    assert build("frieze").returncode == 2
    assert build("venv", "none").returncode == 2


def test_a_python_that_is_none_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHON", "/nonexistent/python")
    done = build("venv", "dev")
    assert done.returncode == 1
    assert "PYTHON=/nonexistent/python" in done.stderr


def test_every_module_of_the_package_is_exercised() -> None:
    names = precompute.modules()
    assert {"cryptpilot_boot", "cryptpilot_boot.cli", "cryptpilot_boot.providers.kms_sdk"} <= set(names)
    assert "cryptpilot_boot.__main__" not in names
    assert freeze.NAME == "cryptpilot"
