"""Artefacts that take long to make and are worth keeping between test runs: root trees, initrds, disk images.

They live outside the repository, under ``$CRYPTPILOT_CACHE/lab`` (by default ``~/.cache/cryptpilot/lab``), each
named after what it was made from, so a changed recipe makes a new artefact and an old one can never be mistaken
for it. Any process may be killed at any time: what is seen under its final name is whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from tests.lab.run import run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

KEEP = 3
"""How many artefacts of one name stay: enough to go back and forth between two branches."""

_in_use: dict[Path, int] = {}
"""Artefact -> descriptor of its lock, shared, held until this process ends so that nobody removes it meanwhile."""


def cache_directory() -> Path:
    """Return the directory that holds the artefacts, made if need be."""
    base = os.environ.get("CRYPTPILOT_CACHE") or str(
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cryptpilot"
    )
    directory = Path(base).absolute() / "lab"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def cached(name: str, key_parts: Iterable[str], make: Callable[[Path], None]) -> Path:
    """Return the artefact made from `key_parts`, making it first if nobody has.

    `make` is given a path that does not exist and creates a file or a directory there. The artefact may be read
    until this process ends; it must not be changed.
    """
    digest = hashlib.sha256("\0".join(key_parts).encode()).hexdigest()[:16]
    path = cache_directory() / f"{name}-{digest}"
    while not (path in _in_use and path.exists()):
        with _locked(path, fcntl.LOCK_SH) as lock:
            if path.exists():
                os.utime(path)
                _in_use[path] = os.dup(lock)
                break
        _make(path, make)
    _remove_old(name)
    return path


def fingerprint(directory: Path) -> str:
    """Return a digest of a directory's files, their names, modes and contents: a key part for what is made of it."""
    digest = hashlib.sha256()
    for path in sorted(directory.rglob("*")):
        content = b""
        if path.is_symlink():
            content = str(path.readlink()).encode()
        elif path.is_file():
            content = path.read_bytes()
        digest.update(f"{path.relative_to(directory)}\0{path.lstat().st_mode:o}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _make(path: Path, make: Callable[[Path], None]) -> None:
    with _locked(path, fcntl.LOCK_EX):
        if path.exists():  # made by another process while this one waited
            return
        making = _making(path)
        _remove(making)
        make(making)
        run(["sync", "--file-system", making])
        making.rename(path)


def _remove_old(name: str) -> None:
    """Remove the least recently used artefacts of a name beyond `KEEP`, and what killed makers left behind."""
    pattern = re.compile(rf"\.?({re.escape(name)}-[0-9a-f]{{16}})(\.making|\.lock)?")
    matches = [pattern.fullmatch(path.name) for path in cache_directory().iterdir()]
    paths = {cache_directory() / match[1] for match in matches if match}
    whole = sorted((path for path in paths if path.exists()), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in paths - set(whole[:KEEP]) - set(_in_use):
        with contextlib.suppress(BlockingIOError), _locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB):
            making = _making(path)
            _remove(making)
            if path.exists():
                path.rename(making)  # never seen half removed under its final name
                _remove(making)
            _lock_file(path).unlink()


def _remove(path: Path) -> None:
    # Should anything be mounted in there after all, it is not for us to empty.
    run(["rm", "--recursive", "--force", "--one-file-system", path])


def _making(path: Path) -> Path:
    return path.with_name(f".{path.name}.making")


def _lock_file(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


@contextlib.contextmanager
def _locked(path: Path, operation: int) -> Iterator[int]:
    """Hold the artefact's lock; the lock file may have been removed and made anew while this process waited."""
    while True:
        lock = os.open(_lock_file(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, operation)
            if _is_same(lock, _lock_file(path)):
                yield lock
                return
        finally:
            os.close(lock)


def _is_same(descriptor: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False
