"""The root of another system, below a directory: its files, and its programs, which are run in it.

No symbolic link of it leads out of it. Its programs are root's there all the same, see docs/convert.md.

Uses: mount, unshare (util-linux), chroot (coreutils).
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.system.mounts import MORTAL, mounted
from cryptpilot_boot.system.run import run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_MOST_LINKS = 40  # as the kernel follows; path_resolution(7)
_MOST_BYTES = 4 << 20  # of a text file
_MOST_OUTPUT = 64 << 10  # bytes of what a program there says, which are kept
_PLAIN = ("null", "zero", "full", "random", "urandom", "tty")
_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx"}


class Root:
    """A root directory, and what is below it. No other process may change it meanwhile."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def place(self, name: str) -> Path:
        """Return where a path of that system is here; what it ends in need not be there.

        Raises CryptpilotError for links that go round in a circle.
        """
        todo = [part for part in reversed(name.split("/")) if part]
        done: list[str] = []
        links = 0
        while todo:
            part = todo.pop()
            if part in (".", ".."):
                done = done[:-1] if part == ".." else done
                continue
            here = self.path.joinpath(*done, part)
            if not here.is_symlink():
                done.append(part)
                continue
            links += 1
            if links > _MOST_LINKS:
                raise CryptpilotError(f"{name} in the image: too many symbolic links")
            target = str(here.readlink())
            done = [] if target.startswith("/") else done
            todo += [part for part in reversed(target.split("/")) if part]
        return self.path.joinpath(*done)

    def has(self, name: str) -> bool:
        """Tell whether there is something at a path, links followed."""
        return self.place(name).exists()

    def is_file(self, name: str) -> bool:
        """Tell whether there is a regular file at a path, links followed."""
        return self.place(name).is_file()

    def is_directory(self, name: str) -> bool:
        """Tell whether a path is a directory itself, and none is reached by a link."""
        return self.place(name) == self.path / name.lstrip("/") and self.place(name).is_dir()

    def names(self, directory: str, suffix: str = "") -> list[str]:
        """Return the entries of a directory whose names end so, in order; nothing if there is no directory."""
        here = self.place(directory)
        return sorted(one.name for one in here.iterdir() if one.name.endswith(suffix)) if here.is_dir() else []

    def text(self, name: str) -> str:
        """Return a text file's content, "" without one; every byte of it can be had back, see `data`."""
        try:
            status = self.place(name).stat()
            if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_BYTES:
                return ""
            return self.place(name).read_bytes().decode("utf-8", "surrogateescape")
        except OSError:
            return ""

    def make_directory(self, name: str, mode: int = 0o755) -> Path:
        """Make a directory and its parents, and return its path here; an existing one stays as it is."""
        here = self.place(name)  # no part of it is a link
        with _telling(name):
            for directory in [one for one in (*reversed(here.parents), here) if one.is_relative_to(self.path)]:
                if not directory.is_dir():
                    directory.mkdir(mode=0o700)
                    directory.chmod(mode if directory == here else 0o755)
        return here

    def write(self, name: str, content: bytes, mode: int) -> None:
        """Write a file, in place of what may be there; its directory is made if need be."""
        with _telling(name):
            here = self._cleared(name)
            descriptor = os.open(here, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                os.fchmod(descriptor, mode)

    def rewrite(self, name: str, content: bytes) -> None:
        """Change what a file holds that is there, links followed; its mode and owner stay."""
        here = self.place(name)
        with _telling(name):
            status = here.stat()
            self.write(f"/{here.relative_to(self.path)}", content, stat.S_IMODE(status.st_mode))
            os.chown(here, status.st_uid, status.st_gid)

    def replace(self, name: str, content: bytes) -> None:
        """Write a file: an existing one as `rewrite` does, a new one readable for all."""
        if self.has(name):
            self.rewrite(name, content)
        else:
            self.write(name, content, 0o644)

    def remove(self, name: str) -> None:
        """Remove a file that is there, links followed."""
        with _telling(name):
            self.place(name).unlink()

    def link(self, name: str, target: str) -> None:
        """Make a symbolic link, in place of what may be there."""
        with _telling(name):
            self._cleared(name).symlink_to(target)

    def _cleared(self, name: str) -> Path:
        """Return where a path is here, with nothing there, and its directory made."""
        parent, _, last = name.rpartition("/")
        here = self.make_directory(parent) / last
        here.unlink(missing_ok=True)
        return here

    def run(self, argv: Sequence[str]) -> str:
        """Run a program of that system in it, `furnished`, and return the end of its output.

        It has no network, and sees no process of this system. Raises ProgramError.
        """
        apart = ["--pid", "--fork", "--kill-child", "--net", "--ipc", "--uts", f"--mount-proc={self.path}/proc"]
        return run(
            [*MORTAL, "unshare", *apart, "chroot", str(self.path), *argv],
            keep=_MOST_OUTPUT,
            name=f"{argv[0]} in the image",
        )[1]

    @contextlib.contextmanager
    def furnished(self, devices: Mapping[str, str]) -> Iterator[None]:
        """Have /dev, /sys and /run in it while a `with` block runs. The mounts are those of this process.

        devices: which block devices of this system are there, by their names below /dev. No other one is there.
        """
        with contextlib.ExitStack() as stack:
            for name, kind, options in (
                ("dev", "tmpfs", ["mode=755", "nosuid", "noexec"]),
                ("sys", "sysfs", ["ro", "nosuid", "nodev", "noexec"]),
                ("run", "tmpfs", ["mode=755", "nosuid", "nodev"]),
            ):
                stack.enter_context(mounted(kind, self.path / name, kind, options))
            dev = self.path / "dev"
            for name in _PLAIN:
                _make_node(dev / name, Path("/dev", name), 0o666)
            for name, node in devices.items():
                (dev / name).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                _make_node(dev / name, Path(node), 0o600)
            for name, target in _LINKS.items():
                (dev / name).symlink_to(target)
            for name in ("shm", "pts"):
                (dev / name).mkdir(mode=0o755)
                (dev / name).chmod(0o755)
            yield


def data(text: str) -> bytes:
    """Return the bytes of a text that a root has."""
    return text.encode("utf-8", "surrogateescape")


@contextlib.contextmanager
def _telling(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CryptpilotError(
            f"{name} in the image: cannot be written: {error.strerror}", "see what is in its place there, and its room"
        ) from None


def _make_node(path: Path, like: Path, mode: int) -> None:
    """Make a device node like another one."""
    status = like.stat()
    os.mknod(path, stat.S_IFMT(status.st_mode) | mode, status.st_rdev)
    path.chmod(mode)
