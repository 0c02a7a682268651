"""Which pinned releases have known vulnerabilities: reading locks and answers, and never taking silence for "none"."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from buildlib import audit, venv
from buildlib.base import ROOT

if TYPE_CHECKING:
    from pathlib import Path

LOCK = """\
--no-binary tomli
cffi==2.0.0 ; python_full_version < '3.10' and platform_python_implementation != 'PyPy' \\
    --hash=sha256:aa
cffi==2.1.1 ; python_full_version >= '3.10' \\
    --hash=sha256:bb
    # via cryptography
idna==3.20 \\
    --hash=sha256:cc
tzdata==2026.6 ; sys_platform == 'win32' \\
    --hash=sha256:dd
"""
PINS = [("cffi", "2.0.0"), ("cffi", "2.1.1"), ("idna", "3.20")]


def report(*dependencies: dict[str, object]) -> str:
    return json.dumps({"dependencies": dependencies, "fixes": []})


def test_every_python_s_releases_are_asked_about_but_not_those_for_other_systems() -> None:
    assert audit.pins(LOCK) == PINS


def test_no_release_is_left_out_and_none_asked_about_beside_another() -> None:
    assert audit.waves(PINS) == [[("cffi", "2.0.0"), ("idna", "3.20")], [("cffi", "2.1.1")]]


def test_a_vulnerability_is_told_with_all_its_names() -> None:
    vulnerability = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["4.0"]}
    found, unknown = audit.answers(report({"name": "idna", "version": "3.20", "vulns": [vulnerability]}), [PINS[2]])
    assert found == [audit.Vulnerability("idna", "3.20", ("PYSEC-1", "CVE-1"), ("4.0",))]
    assert unknown == []


@pytest.mark.parametrize(
    "said", ["", "Traceback", report(), report({"name": "idna", "skip_reason": "Dependency not found"})]
)
def test_silence_is_not_taken_for_none(said: str) -> None:
    assert audit.answers(said, [PINS[2]]) == ([], [PINS[2]])


def test_none_is_taken_for_none() -> None:
    assert audit.answers(report({"name": "idna", "version": "3.20", "vulns": []}), [PINS[2]]) == ([], [])


def test_only_what_somebody_has_looked_at_is_excused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(audit.REMAINING, ("idna", "3.20", "CVE-1"), "for names that nobody asks for")
    assert audit.reason(audit.Vulnerability("idna", "3.20", ("GHSA-1", "CVE-1"))) == "for names that nobody asks for"
    assert audit.reason(audit.Vulnerability("idna", "3.20.1", ("CVE-1",))) == ""
    assert audit.reason(audit.Vulnerability("idna", "3.20", ("CVE-0",))) == ""


def test_what_is_excused_is_pinned() -> None:
    pinned = {pin for lock in audit.LOCKS for pin in audit.pins((ROOT / f"requirements/{lock}.lock").read_text())}
    assert {(package, version) for package, version, _ in audit.REMAINING} <= pinned


def asked(answer: str, status: int, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Run `build.py audit` with a program in pip-audit's place that says this, whoever asks it for what."""
    program = f"""\
import sys
from buildlib import audit, venv
import build
venv.environment = lambda *_: __import__("pathlib").Path({str(tmp_path)!r})
audit.pins = lambda _: [("idna", "3.20")]
sys.argv = ["build.py", "audit"]
sys.exit(build.main())
"""
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin/pip-audit"
    script.write_text(f"#!/bin/sh\necho 'no route' >&2\nprintf %s '{answer}'\nexit {status}\n")
    script.chmod(0o755)
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("answer", "status", "expected", "said"),
    [
        (report({"name": "idna", "version": "3.20", "vulns": []}), 0, 0, "no known vulnerability"),
        (report({"name": "idna", "version": "3.20", "vulns": [{"id": "CVE-1"}]}), 1, 1, "idna 3.20: CVE-1"),
        (report({"name": "idna", "skip_reason": "not found"}), 0, audit.NOT_KNOWN, "nothing could be learned"),
        ("", 1, audit.NOT_KNOWN, "no route"),
    ],
)
def test_the_exit_status_tells(tmp_path: Path, answer: str, status: int, expected: int, said: str) -> None:
    done = asked(answer, status, tmp_path)
    assert said in done.stdout + done.stderr
    assert done.returncode == expected


def test_there_is_a_lock_for_it() -> None:
    venv.require_locks("audit")
