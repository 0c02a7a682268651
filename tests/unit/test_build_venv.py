"""Environments made from locks, and the locks themselves."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from buildlib import locks, venv
from buildlib.base import ROOT, BuildError
from buildlib.python import Python

PYTHON = Python(Path("/usr/bin/python3"), "3.11.2", "3.11.2 (main)")
LOCK = """\
# made by make lock
--no-binary tomli

cffi==2.0.0 ; python_full_version < '3.10' \\
    --hash=sha256:aa
    # via cryptography
setuptools==80.9.0 \\
    --hash=sha256:bb \\
    --hash=sha256:cc
    # via
    #   -r requirements/build.in
    #   pyinstaller
setuptools-scm==1.0 \\
    --hash=sha256:dd
wheel==0.45.1 \\
    --hash=sha256:ee
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CRYPTPILOT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Stand in for the making of an environment; the list holds what was made."""
    made: list[Path] = []

    def run(command: list[object], **_: object) -> None:
        if command[1:3] == ["-m", "venv"]:
            (place,) = command[3:]
            assert isinstance(place, Path)
            place.mkdir()
            made.append(place)

    monkeypatch.setattr(venv, "run", run)
    return made


def test_entries_come_with_all_their_hashes() -> None:
    found = venv.entries(LOCK, {"setuptools", "wheel"})
    assert re.findall(r"sha256:(\w\w)", found) == ["bb", "cc", "ee"]
    assert found.startswith("setuptools==80.9.0 \\\n")
    assert "no-binary" not in found


def test_an_environment_is_made_once(cache: Path, made: list[Path]) -> None:
    place = venv.environment("build", PYTHON)
    assert venv.environment("build", PYTHON) == place
    assert made == [place]
    assert place.parent == cache


def test_half_an_environment_is_not_taken_for_whole(
    cache: Path, made: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(command: list[object], **_: object) -> None:
        place = Path(str(command[3]))
        place.mkdir()
        (place / "half").touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(venv, "run", die)
        with pytest.raises(KeyboardInterrupt):
            venv.environment("build", PYTHON)
    (half,) = cache.glob("venv-build-*")
    assert venv.environment("build", PYTHON) == half
    assert made == [half]
    assert not (half / "half").exists()


def test_another_python_gets_another_and_old_ones_go(cache: Path, made: list[Path]) -> None:
    places = []
    for number in range(4):
        python = Python(PYTHON.path, "3.11.2", f"build {number}")
        places.append(venv.environment("build", python))
        os.utime(places[-1], (number, number))
    other = venv.environment("sdk", PYTHON)
    assert made == [*places, other]
    assert [place.exists() for place in places] == [False, False, True, True]
    assert {path.name for path in cache.glob("venv-build-*")} == {place.name for place in places[2:]}


def test_a_missing_lock_is_an_error_with_a_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(venv.LOCK_SETS, "dev", ("none",))
    with pytest.raises(BuildError) as caught:
        venv.require_locks("dev")
    assert "requirements/none.lock" in caught.value.what
    assert "build.py lock" in caught.value.hint


ALL_LOCKS = sorted((ROOT / "requirements").glob("*.lock"))


@pytest.mark.parametrize("lock", ALL_LOCKS, ids=lambda path: str(path.name))
def test_a_lock_says_what_and_not_from_where(lock: Path) -> None:
    assert not locks.names_a_place(lock.read_text())


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://example.org/simple",
        "    --extra-index-url file:x",
        "-f wheels",
        "--find-links=wheels",
        "tomli @ file:///srv/tomli.whl",
        "    # via /home/me/requirements.in",
    ],
)
def test_a_lock_that_names_a_place_is_noticed(line: str) -> None:
    assert locks.names_a_place(f"{LOCK}{line}\n")


@pytest.mark.parametrize("lock", ALL_LOCKS, ids=lambda path: str(path.name))
def test_every_requirement_is_pinned_and_has_a_hash(lock: Path) -> None:
    for line in re.findall(r"^[A-Za-z0-9].*(?:\n[ \t].*)*", lock.read_text(), re.MULTILINE):
        assert re.match(r"[a-z0-9-]+==\S+( ; .*)? \\\n", line), line
        assert "--hash=sha256:" in line, line


def test_of_a_package_s_hashes_some_are_kept() -> None:
    kept = locks.with_hashes_alone(LOCK, "setuptools==80.9.0", {"cc"})
    assert kept == LOCK.replace("    --hash=sha256:bb \\\n", "")
    assert locks.with_hashes_alone(LOCK, "setuptools==80.9.0", {"cc", "bb"}) == LOCK
    for requirement, sha256 in (("setuptools==80.9.0", "dd"), ("setuptools==80.9", "bb"), ("scm==1.0", "dd")):
        with pytest.raises(BuildError, match=requirement):
            locks.with_hashes_alone(LOCK, requirement, {sha256})


def test_protobuf_is_plain_python() -> None:
    """The SDK's generated code runs on none that is compiled; the hash of one wheel lets no other file in."""
    from google.protobuf.internal import api_implementation

    assert api_implementation.Type() == "python"
    entries = re.findall(
        r"^protobuf==.*\n(?:[ ]+--hash.*\n)+", (ROOT / "requirements/agent.lock").read_text(), re.MULTILINE
    )
    assert entries
    assert [entry.count("--hash=") for entry in entries] == [1] * len(entries)


def test_locks_that_are_installed_together_agree() -> None:
    pins: dict[str, set[str]] = {}
    for name in venv.LOCK_SETS["dev"]:
        for package, version in re.findall(
            r"^([a-z0-9-]+)==(\S+)", (ROOT / f"requirements/{name}.lock").read_text(), re.MULTILINE
        ):
            pins.setdefault(package, set()).add(f"{version} in {name}")
    shared = {package: {pin.split()[0] for pin in found} for package, found in pins.items()}
    for package in ("packaging", "tomli"):
        assert len(shared[package]) == 1, pins[package]
