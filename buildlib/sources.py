"""The source archives of the interpreter: which there are, and fetching them.

Each is the upstream archive of a Debian source package, known by its SHA-256. Uses: apt-get and apt-cache, with a
configuration of their own in a temporary directory, so that this machine's own sources stay as they are; apt verifies
the signature of the release. What was fetched once is kept.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from buildlib.base import BuildError, cache_directory, digest_of_file, note, run

if TYPE_CHECKING:
    from collections.abc import Sequence

_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


@dataclasses.dataclass(frozen=True)
class Source:
    """A source archive.

    name, version, license (SPDX), purl, cpe: as the list of a bundle's contents has them. package: the Debian source
    package; suite: a Debian release that has it. file, sha256: the archive. directory: what it unpacks to.
    """

    name: str
    version: str
    license: str
    package: str
    suite: str
    file: str
    sha256: str
    directory: str
    cpe: str = ""

    @property
    def purl(self) -> str:
        """The package URL."""
        return f"pkg:generic/{self.name.lower()}@{self.version}"


PYTHON = Source(
    name="CPython",
    version="3.13.15",
    license="Python-2.0.1",
    package="python3.13",
    suite="forky",
    file="python3.13_3.13.15.orig.tar.xz",
    sha256="1e66a7945a48390ee4c2a4268a0e4185884059a13c4aab6d148aa208deea4a76",
    directory="Python-3.13.15",
    cpe="cpe:2.3:a:python:python:3.13.15:*:*:*:*:*:*:*",
)
OPENSSL = Source(
    name="OpenSSL",
    version="3.5.7",
    license="Apache-2.0",
    package="openssl",
    suite="trixie",
    file="openssl_3.5.7.orig.tar.gz",
    sha256="a8c0d28a529ca480f9f36cf5792e2cd21984552a3c8e4aa11a24aa31aeac98e8",
    directory="openssl-3.5.7",
    cpe="cpe:2.3:a:openssl:openssl:3.5.7:*:*:*:*:*:*:*",
)
LIBFFI = Source(
    name="libffi",
    version="3.4.8",
    license="MIT",
    package="libffi",
    suite="trixie",
    file="libffi_3.4.8.orig.tar.gz",
    sha256="cbb7f0b3b095dc506387ec1e35b891bfb4891d05b90a495bc69a10f2293f80ff",
    directory="libffi-3.4.8",
)
# Compiled to link with, never carried: the launcher needs the system's own anyway.
ZLIB = Source(
    name="zlib",
    version="1.3.1",
    license="Zlib",
    package="zlib",
    suite="trixie",
    file="zlib_1.3.dfsg+really1.3.1.orig.tar.gz",
    sha256="60dd315c07f616887caa029408308a018ace66e3d142726a97db164b3b8f69fb",
    directory="zlib-1.3.1",
)


def directory() -> Path:
    """Return where source archives are kept, and see to it that it is there."""
    place = cache_directory() / "sources"
    place.mkdir(exist_ok=True)
    return place


def fetched(wanted: Sequence[Source]) -> list[Path]:
    """Return the archives, fetching those that are missing or damaged. Raises BuildError."""
    place = directory()
    missing = [source for source in wanted if not _is_whole(place / source.file, source)]
    if missing:
        _fetch(missing, place)
    return [place / source.file for source in wanted]


def _is_whole(path: Path, source: Source) -> bool:
    return path.is_file() and digest_of_file(path) == source.sha256


def _fetch(missing: list[Source], place: Path) -> None:
    names = ", ".join(f"{source.name} {source.version}" for source in missing)
    hint = (
        "or put these files into " + str(place) + ":\n  " + "\n  ".join(f"{one.sha256}  {one.file}" for one in missing)
    )
    if not shutil.which("apt-get"):
        raise BuildError(f"the sources of {names} are missing, and there is no apt-get to fetch them with", hint)
    note(f"fetching the sources of {names}")
    hint = f"see whether this machine reaches its package archive; {hint}"
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=place) as name:
        work = Path(name)
        env = _apt(work, archive(_configured(hint)), sorted({source.suite for source in missing}))
        run(["apt-get", "update"], env=env, hint=hint)
        for source in missing:
            shown = run(["apt-cache", "showsrc", source.package], env=env, hint=hint)
            version = version_with(shown, source.sha256)
            if not version:
                raise BuildError(
                    f"Debian {source.suite} has no {source.file} with the SHA-256 in buildlib/sources.py any more", hint
                )
            command = ["apt-get", "source", "--download-only", "--tar-only", f"{source.package}={version}"]
            run(command, cwd=work, env=env, hint=hint)
            if not _is_whole(work / source.file, source):
                raise BuildError(f"{source.file} does not have the SHA-256 in buildlib/sources.py", hint)
            (work / source.file).replace(place / source.file)


def _configured(hint: str) -> str:
    return run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)"], hint=hint)


def archive(targets: str) -> str:
    """Return the address of the archive that this machine takes its own Debian release from.

    targets: lines of address and release, as ``apt-get indextargets`` prints them. Another release is at the same
    address. Raises BuildError without such a line.
    """
    for line in targets.splitlines():
        address, _, release = line.partition(" ")
        if release in _RELEASES:
            return address
    raise BuildError(
        "apt has no archive of a Debian release on this machine",
        "build on Debian, or put the source archives into " + str(directory()),
    )


_RELEASES = frozenset({"bookworm", "trixie", "forky", "sid", "stable", "testing", "unstable"})


def version_with(shown: str, sha256: str) -> str:
    """Return the version of the source package that has a file with this checksum, "" if none has.

    shown: what ``apt-cache showsrc`` prints.
    """
    for entry in shown.split("\n\n"):
        version = re.search(r"^Version: (\S+)$", entry, re.MULTILINE)
        if version and re.search(rf"^ {sha256} ", entry, re.MULTILINE):
            return version[1]
    return ""


def _apt(work: Path, address: str, suites: list[str]) -> dict[str, str]:
    """Write an apt configuration that knows the sources of some suites alone; return the environment that chooses it.

    The release files of a mirror that stands still are expired. That lets old packages pass, and none but those whose
    checksum is known here are wanted.
    """
    for name in ("state/lists/partial", "cache/archives/partial"):
        (work / name).mkdir(parents=True)
    (work / "status").touch()
    (work / "sources.list").write_text(
        "".join(f"deb-src [signed-by={_KEYRING}] {address} {suite} main\n" for suite in suites)
    )
    settings = {
        "Dir::State": work / "state",
        "Dir::State::status": work / "status",
        "Dir::Cache": work / "cache",
        "Dir::Etc::sourcelist": work / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Acquire::Check-Valid-Until": "false",
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "",
    }
    (work / "apt.conf").write_text("".join(f'{key} "{value}";\n' for key, value in settings.items()))
    return {**os.environ, "APT_CONFIG": str(work / "apt.conf"), "LC_ALL": "C"}
