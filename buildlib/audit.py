"""Asking which of the pinned releases have known vulnerabilities. Uses: pip-audit, and a service it can reach.

Not to know is not the same as to know of none: what no service answered for is an error of its own kind.
"""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from buildlib import python, venv
from buildlib.base import ROOT, BuildError, note

if TYPE_CHECKING:
    from collections.abc import Iterable

# Those that decide what a bundle carries: its packages, and what freezes them.
LOCKS = ("agent", "build")
# By the names that pip-audit has for them; each is asked for what those before could not tell.
SERVICES = ("pypi", "osv")

# Told apart from "there are some", which is 1, and from wrong usage.
NOT_KNOWN = 3

_PIN = re.compile(r"^([a-z0-9-]+)==([^\s;]+)(?: ; (.*))? \\$", re.MULTILINE)
_ELSEWHERE = ("sys_platform == 'win32'", "sys_platform == 'darwin'")

Pin = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Vulnerability:
    """A known vulnerability of a pinned release. names: its identifiers; fixed: releases without it."""

    package: str
    version: str
    names: tuple[str, ...]
    fixed: tuple[str, ...] = ()


# What remains, and why it does no harm here, by package, version and name.
REMAINING: dict[tuple[str, str, str], str] = {}


class NotKnownError(BuildError):
    """No service could be asked, or none knows a release."""

    status = NOT_KNOWN


def pins(text: str) -> list[Pin]:
    """Return every release that a lock pins for any Python on Linux, as (name, version), sorted."""
    found = {(name, version) for name, version, marker in _PIN.findall(text) if marker not in _ELSEWHERE}
    return sorted(found)


def waves(wanted: Iterable[Pin]) -> list[list[Pin]]:
    """Split releases so that each part has a package once: pip-audit takes no second release of one."""
    found: list[dict[str, str]] = []
    for name, version in wanted:
        place = next((wave for wave in found if name not in wave), None)
        if place is None:
            found.append(place := {})
        place[name] = version
    return [sorted(wave.items()) for wave in found]


def answers(report: str, wave: Iterable[Pin]) -> tuple[list[Vulnerability], list[Pin]]:
    """Read what pip-audit says: the vulnerabilities, and the releases it says nothing of.

    What is no report says nothing of all of them. A release that the service does not know is skipped with an exit
    status of 0, so that status tells nothing.
    """
    try:
        table: dict[str, Any] = json.loads(report)
    except ValueError:
        return [], list(wave)
    known = {entry["name"]: entry for entry in table["dependencies"] if "vulns" in entry}
    found = [
        Vulnerability(name, version, (one["id"], *one.get("aliases", ())), tuple(one.get("fix_versions", ())))
        for name, version in wave
        for one in known.get(name, {}).get("vulns", ())
    ]
    return found, [(name, version) for name, version in wave if name not in known]


def reason(vulnerability: Vulnerability) -> str:
    """Return why a vulnerability does no harm here, "" if that is not known yet."""
    pin = (vulnerability.package, vulnerability.version)
    return next((REMAINING[(*pin, name)] for name in vulnerability.names if (*pin, name) in REMAINING), "")


def audit() -> list[Vulnerability]:
    """Return all known vulnerabilities of the releases in LOCKS. Raises NotKnownError if no service answers."""
    unknown = sorted({pin for lock in LOCKS for pin in pins((ROOT / f"requirements/{lock}.lock").read_text())})
    venv.require_locks("audit")
    program = venv.environment("audit", python.chosen()) / "bin/pip-audit"
    found: list[Vulnerability] = []
    last = ""
    for service in SERVICES:
        if unknown:
            note(f"asking {service} about {len(unknown)} releases")
            asked, unknown = waves(unknown), []
            for wave in asked:
                report, said = _ask(program, service, wave)
                new, silent = answers(report, wave)
                found += new
                unknown += silent
                last = said or last
    if unknown:
        names = ", ".join(f"{name} {version}" for name, version in unknown)
        raise NotKnownError(
            f"nothing could be learned about {len(unknown)} releases: {names}\n  {last}",
            "run this where a vulnerability service can be reached; this is no answer, neither good nor bad",
        )
    return found


def _ask(program: Path, service: str, wave: Iterable[Pin]) -> tuple[str, str]:
    """Return pip-audit's report, and the last line of what else it says, without what it always says."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name, "requirements.txt")
        file.write_text("".join(f"{package}=={version}\n" for package, version in wave))
        command: list[str | Path] = [program, "--disable-pip", "--no-deps", "--format=json", "--progress-spinner=off"]
        done = subprocess.run(
            [*command, f"--vulnerability-service={service}", f"--requirement={file}"],
            capture_output=True,
            text=True,
            check=False,
        )
    said = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
    return done.stdout, said[-1] if said and done.stdout == "" else ""
