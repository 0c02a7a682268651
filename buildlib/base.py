"""What the other files share: errors, running a program, and where things are kept."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent

_LINES_OF_A_FAILURE = 25


class BuildError(Exception):
    """Something cannot be built. `what` says what and why, `hint` what to do next, `status` how build.py exits."""

    status = 1

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str = "",
    hint: str = "",
) -> str:
    """Run a program to its end and return its standard output.

    env: takes the place of the whole environment. hint: the next step, should it fail. Raises BuildError with the
    last lines of what it said.
    """
    try:
        done = subprocess.run(
            [str(word) for word in argv],
            cwd=cwd,
            env=env,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        raise BuildError(f"{argv[0]} cannot be run: {error.strerror}", hint) from None
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip().splitlines()[-_LINES_OF_A_FAILURE:]
        command = " ".join(str(word) for word in argv)
        raise BuildError("\n  ".join([f"failed with exit status {done.returncode}: {command}", *said]), hint)
    return done.stdout


def note(text: str) -> None:
    """Tell the person what takes time now."""
    sys.stderr.write(f"build.py: {text}\n")


def lay_out(source: Path, place: Path) -> None:
    """Copy a directory to `place`, instead of what is there; at no time is there half of it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{place.name}-", dir=place.parent) as name:
        shutil.copytree(source, Path(name, "new"))
        if place.exists():
            place.replace(Path(name, "old"))
        Path(name, "new").replace(place)


def cache_directory() -> Path:
    """Return where environments and finished bundles are kept, and see to it that it is there."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cryptpilot"
    directory = Path(os.environ.get("CRYPTPILOT_CACHE") or default).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time do what `path` stands for. The lock ends with its holder, however that ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def newest_first(paths: Iterable[Path]) -> list[Path]:
    """Sort by time of change; what another process has just removed counts as the oldest."""

    def changed(path: Path) -> float:
        try:
            return path.stat().st_mtime
        except OSError:
            return 0.0

    return sorted(paths, key=changed, reverse=True)


def digest(parts: Iterable[bytes]) -> str:
    """Return one SHA-256 (hexadecimal) for a sequence of byte strings."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "big") + part)
    return whole.hexdigest()


def digest_of_file(path: Path) -> str:
    """Return the SHA-256 (hexadecimal) of a file's content."""
    whole = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            whole.update(block)
    return whole.hexdigest()
