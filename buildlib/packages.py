"""Which package of the distribution a file comes from. Uses dpkg-query or rpm, whichever there is."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_DPKG_FORMAT = "${binary:Package}\\t${Package}\\t${Version}\\t${Architecture}\\t${source:Package} ${source:Version}\\n"
_RPM_FORMAT = "%{NAME}\\t%{EPOCHNUM}\\t%{VERSION}-%{RELEASE}\\t%{ARCH}\\t%{SOURCERPM}\\n"


@dataclasses.dataclass(frozen=True)
class Package:
    """A package of a distribution. source: the source package with its version. purl: its package URL."""

    name: str
    version: str
    source: str
    purl: str


def owners(paths: Iterable[Path]) -> dict[Path, Package]:
    """Return those of the files that belong to a package, with the package."""
    wanted = sorted(set(paths))
    release = _release()
    if shutil.which("dpkg-query"):
        found = owned(wanted, _said("dpkg-query", "--search", *_spellings(wanted)))
        names = sorted(set(found.values()))
        known = dpkg_packages(_said("dpkg-query", "--show", f"--showformat={_DPKG_FORMAT}", *names), release)
        return {path: known[name] for path, name in found.items() if name in known}
    if shutil.which("rpm"):
        told = {path: _said("rpm", "--query", f"--queryformat={_RPM_FORMAT}", "--file", str(path)) for path in wanted}
        return {path: package for path, text in told.items() if (package := rpm_package(text, release))}
    return {}


def _said(*command: str) -> str:
    """Return what a program says, also when it fails: it does so when a single file belongs to no package."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"LC_ALL": "C", "PATH": _path()})
    return done.stdout


def _path() -> str:
    return "/usr/sbin:/usr/bin:/sbin:/bin"


def _release() -> dict[str, str]:
    try:
        text = Path("/etc/os-release").read_text()
    except OSError:
        return {}
    return {key: value.strip("\"'") for key, _, value in (line.partition("=") for line in text.splitlines())}


def _spellings(paths: Iterable[Path]) -> list[str]:
    return [spelling for path in paths for spelling in spellings(path)]


def spellings(path: Path) -> list[str]:
    """Return the names a package may know a file by: with /usr and without, where the two are one."""
    name = str(path)
    return [name, name.removeprefix("/usr") if name.startswith("/usr/lib") else f"/usr{name}"]


def owned(paths: Iterable[Path], said: str) -> dict[Path, str]:
    """Return those of the files that belong to a package, with its name, from what `dpkg-query --search` says."""
    names = {}
    for line in said.splitlines():
        packages, _, name = line.rpartition(": ")
        if not packages.startswith("diversion by "):
            names[name] = packages.split(", ")[0]
    found = {path: [names[spelling] for spelling in spellings(path) if spelling in names] for path in paths}
    return {path: several[0] for path, several in found.items() if several}


def dpkg_packages(said: str, release: Mapping[str, str]) -> dict[str, Package]:
    """Return the packages that dpkg-query shows, by the name it has for each (NAME or NAME:ARCHITECTURE)."""
    found = {}
    for line in said.splitlines():
        key, name, version, architecture, source = line.split("\t")
        qualifiers = {"arch": architecture, "distro": release.get("VERSION_CODENAME", "")}
        purl = _purl("deb", release.get("ID", "debian"), name, version, qualifiers)
        package = Package(name, version, source, purl)
        found.update({key: package, f"{name}:{architecture}": package})
    return found


def rpm_package(said: str, release: Mapping[str, str]) -> Package | None:
    """Return the package that rpm shows, None if it says that there is none."""
    fields = said.splitlines()[0].split("\t") if said else []
    if len(fields) != 5:
        return None
    name, epoch, version, architecture, source = fields
    qualifiers = {"arch": architecture, "epoch": "" if epoch == "0" else epoch}
    return Package(name, version, source, _purl("rpm", release.get("ID", "linux"), name, version, qualifiers))


def _purl(kind: str, distribution: str, name: str, version: str, qualifiers: Mapping[str, str]) -> str:
    def quoted(text: str) -> str:
        return urllib.parse.quote(text, safe="")

    more = "&".join(f"{key}={quoted(value)}" for key, value in sorted(qualifiers.items()) if value)
    return f"pkg:{kind}/{quoted(distribution)}/{quoted(name)}@{quoted(version)}?{more}"
