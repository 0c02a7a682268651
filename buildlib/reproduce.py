"""Building a second time under other circumstances, and telling what comes out differently. Uses: git."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

from buildlib import archive, freeze, python
from buildlib.base import ROOT, BuildError, digest_of_file, run

# What must not matter. Another place, another home and other times come by themselves.
_CIRCUMSTANCES = {
    "LC_ALL": "C",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "4711",
    "PYTHONOPTIMIZE": "1",
    "SOURCE_DATE_EPOCH": "946684800",
    "TZ": "Asia/Shanghai",
    "]": "[",  # a string of one character: buildlib/bytecode.py says why
}
_UMASK = "077"
_SHOWN = 20


def clone(place: Path) -> str:
    """Clone the commit that is checked out to `place`, and return its name.

    Raises BuildError where what would be built is not what was committed.
    """
    hint = "this compares a commit with what was built from it: run it in a git checkout"
    changed = run(["git", "-C", ROOT, "status", "--porcelain"], hint=hint)
    if changed:
        raise BuildError(
            f"the checkout is not as it was committed:\n{changed.rstrip()}", "commit, or remove what is new"
        )
    run(["git", "clone", "--quiet", "--no-local", ROOT, place], hint=hint)
    return run(["git", "-C", place, "rev-parse", "HEAD"]).strip()


def build(checkout: Path, cache: Path, output: Path) -> Path:
    """Freeze what is in a checkout, under other circumstances than those that reign here; return the bundle.

    cache: takes the place of the usual one, so nothing is found there that this machine has made before, unless it
    was put there.
    """
    _build(checkout, cache, ["freeze", "--output", str(output)])
    return output / freeze.NAME


def build_packages(checkout: Path, cache: Path, bundle: Path, output: Path) -> None:
    """Make the packages of a bundle that was built there, under these other circumstances as well."""
    _build(checkout, cache, ["packages", "--bundle", str(bundle), "--output", str(output)])


def _build(checkout: Path, cache: Path, words: list[str]) -> None:
    script = shlex.join([str(python.chosen().path), "build.py", *words])
    run(
        ["sh", "-c", f"umask {_UMASK}; exec {script}"],
        cwd=checkout,
        env={**os.environ, **_CIRCUMSTANCES, "CRYPTPILOT_CACHE": str(cache)},
    )


def differences(one: Path, other: Path) -> list[str]:
    """Say which files below two directories are not the same, and which modules where that is an archive."""
    files = {
        root: {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()} for root in (one, other)
    }
    found = [f"{path}: is in {root} alone" for root in files for path in files[root] - (files[one] & files[other])]
    for path in files[one] & files[other]:
        found += [f"{path}: {text}" for text in _differences_of_file(one / path, other / path)]
    return sorted(found)


def _differences_of_file(one: Path, other: Path) -> list[str]:
    modes = [stat.S_IMODE(path.lstat().st_mode) for path in (one, other)]
    found = [f"has mode {modes[0]:04o} and {modes[1]:04o}"] if modes[0] != modes[1] else []
    if digest_of_file(one) == digest_of_file(other):
        return found
    if not archive.is_archive(one):
        return [*found, f"has {one.stat().st_size} bytes and {other.stat().st_size}, which are not the same"]
    members, others = archive.members(one), archive.members(other)
    names = sorted(name for name in members.keys() | others.keys() if members.get(name) != others.get(name))
    more = [f"and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    return [*found, "differs in " + ", ".join([*names[:_SHOWN], *more])] if names else [*found, "is in another order"]
