"""User-mode Linux: a machine with real device-mapper that is up in two seconds and needs nothing of the host.

The host's kernel may have no dm-crypt; this one, a program of its own, always does. It has no network but
its own loopback, and sees of the host's files what it is given. Its system calls cost some twenty
times the host's: time what happens inside only against other things inside.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from tests.lab.disk import Disk
from tests.lab.run import LabError, contained, end, is_running, spawn
from tests.lab.tree import SHARE

if TYPE_CHECKING:
    from collections.abc import Sequence

UML_MODULES = Path("/usr/lib/uml/modules")
DISK_LETTERS = "abcdefghijklmnop"
"""The disks that the kernel has room for."""

MODULES = (
    # dm-crypt does not load without aes_generic there before it.
    *("aes_generic", "cbc", "xts", "ecb", "sha256_generic", "hmac", "authenc", "essiv"),
    *("dm-mod", "dm-crypt", "dm-bufio", "dm-integrity", "loop"),
)
"""Loaded in this order before the script runs."""


@dataclass(frozen=True)
class UmlResult:
    """What a machine left behind. `returncode` is the script's, or None when the machine ended before the script."""

    returncode: int | None
    stdout: str
    stderr: str
    console: str
    seconds: float

    def check(self) -> UmlResult:
        """Return the result itself; show everything if the script failed."""
        if self.returncode != 0:
            raise AssertionError(str(self))
        return self

    def __str__(self) -> str:
        ended = "did not end" if self.returncode is None else f"ended with status {self.returncode}"
        return "\n".join(
            [
                f"The script {ended} after {self.seconds:.1f} s.",
                *("--- standard output", self.stdout),
                *("--- standard error", self.stderr),
                *("--- console", self.console),
            ]
        )


class Uml:
    """A machine at work, as `start_uml` returns it; it is killed at the end of a ``with`` statement if not before."""

    def __init__(self, process: subprocess.Popen[bytes], job: Path, lifeline: BinaryIO) -> None:
        self._process = process
        self._job = job
        self._lifeline = lifeline
        self._started = time.monotonic()
        self._result: UmlResult | None = None

    def __enter__(self) -> Uml:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def running(self) -> bool:
        """Whether the machine is still on."""
        return is_running(self._process)

    def wait(self, timeout: float = 120) -> UmlResult:
        """Wait for the script's end, up to `timeout` seconds, then kill the machine and fail."""
        deadline = time.monotonic() + timeout
        while self.running:
            if time.monotonic() > deadline:
                raise LabError(f"The machine was still at work after {timeout:g} s.\n{self.kill()}")
            time.sleep(0.02)
        return self.kill()

    def kill(self) -> UmlResult:
        """Cut the power: what the machine had not yet written to a disk is lost. Return what there is."""
        if self._result:
            return self._result
        end(self._process)
        with self._lifeline:
            self._lifeline.read()
        seconds = time.monotonic() - self._started
        status = self._read("status").strip()
        self._result = UmlResult(
            returncode=int(status) if status else None,
            stdout=self._read("stdout"),
            stderr=self._read("stderr"),
            console=self._read("console"),
            seconds=seconds,
        )
        shutil.rmtree(self._job, ignore_errors=True)
        return self._result

    def _read(self, name: str) -> str:
        with contextlib.suppress(FileNotFoundError):
            return (self._job / name).read_text(errors="replace")
        return ""


def run_uml(
    root: Path,
    script: str,
    *,
    disks: Sequence[Disk | Path] = (),
    memory: str = "1G",
    timeout: float = 120,
    share: Path | None = None,
    modules: Sequence[str] = (),
) -> UmlResult:
    """Run a bash script in a machine of its own and return what came of it; see `start_uml`."""
    with start_uml(root, script, disks=disks, memory=memory, share=share, modules=modules) as uml:
        return uml.wait(timeout)


def start_uml(
    root: Path,
    script: str,
    *,
    disks: Sequence[Disk | Path] = (),
    memory: str = "1G",
    share: Path | None = None,
    modules: Sequence[str] = (),
) -> Uml:
    """Start a machine whose root is the tree `root`, and in it a bash script under ``set -eu``.

    The tree is writable in there and stays as it is out here; ``Path("/")`` gives the host's own programs. Disks
    appear in order as ``/dev/ubda``, ``/dev/ubdb``..., and under `Disk.device`; a bare path is named after its stem.
    `share` is seen at `SHARE`, writable; a file closed in there is at once complete out here. `modules` are
    loaded beside `MODULES`. There is no udev; device-mapper nodes are made without it.

    Host programs: ``linux.uml``, ``modprobe``, ``ip``, ``halt``. Raises `LabError` when it cannot be started.
    """
    named = [disk if isinstance(disk, Disk) else Disk(disk, disk.stem) for disk in disks]
    for path in (root, share, *(disk.path for disk in named)):
        if path and not re.fullmatch(r"[\w/.+@-]+", str(path)):
            raise LabError(f"{path}: a path given to the kernel's command line or to mount must be plain.")
    if len(named) > len(DISK_LETTERS):
        raise LabError(f"{len(named)} disks: user-mode Linux takes {len(DISK_LETTERS)}.")
    job = Path(tempfile.mkdtemp(prefix="cryptpilot-uml-"))
    shutil.copy(Path(__file__).with_name("init.sh"), job / "init")
    (job / "init").chmod(0o755)
    (job / "script").write_text(script)
    (job / "load").write_text("\n".join(["overlay", *MODULES, *modules]))
    (job / "modules/lib").mkdir(parents=True)
    (job / "modules/lib/modules").symlink_to(UML_MODULES)
    (job / "fstab").write_text(_fstab(job, root, share))
    _make_device_links(job / "dev", [disk.name for disk in named])
    with (job / "console").open("wb") as console:
        # Each of the machine's processes holds the other end of this pipe: it closes when the last one is gone, and
        # with it the last write to a disk.
        lifeline, held = os.pipe()
        process = spawn(
            contained(_command(job, memory, named)), stdout=console, stderr=subprocess.STDOUT, pass_fds=[held]
        )
        os.close(held)
    return Uml(process, job, os.fdopen(lifeline, "rb"))


def _command(job: Path, memory: str, disks: Sequence[Disk]) -> list[str]:
    return [
        "linux.uml",
        *("root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro"),
        *(f"init={job}/init", f"job={job}", f"uml_dir={job}/", "umid=uml"),
        *(f"mem={memory}", "con=null", "con0=fd:0,fd:1", "quiet"),
        *(f"ubd{n}{'r' if disk.readonly else ''}={disk.path.resolve()}" for n, disk in enumerate(disks)),
    ]


def _fstab(job: Path, root: Path, share: Path | None) -> str:
    """Describe what the machine mounts, in order, once it is up."""
    layers = f"lowerdir={root.resolve()},upperdir=/run/layer/upper,workdir=/run/layer/work"
    # The product loads its modules in the tree it runs in.
    modules = "/run/root/usr/lib/modules"
    lines = [
        f"hostfs /run/job hostfs {job},x-mount.mkdir",
        f"overlay /run/root overlay {layers},x-mount.mkdir",
        "proc /run/root/proc proc defaults",
        "sysfs /run/root/sys sysfs defaults",
        "devtmpfs /run/root/dev devtmpfs mode=755",
        "devpts /run/root/dev/pts devpts newinstance,ptmxmode=666,x-mount.mkdir",
        "tmpfs /run/root/dev/shm tmpfs x-mount.mkdir",
        "tmpfs /run/root/run tmpfs mode=755",
        "tmpfs /run/root/run/cryptsetup tmpfs mode=700,x-mount.mkdir",
        *(f"{path} {modules}/{path.name} none bind,x-mount.mkdir" for path in UML_MODULES.iterdir()),
    ]
    if share:
        lines.append(f"hostfs /run/root{SHARE} hostfs {share.resolve()}")
    return "".join(f"{line} 0 0\n" for line in lines)


def _make_device_links(directory: Path, disk_names: Sequence[str]) -> None:
    """Lay out the links that udev would have made in the machine's ``/dev``."""
    by_id = directory / "disk/by-id"
    by_id.mkdir(parents=True)
    for letter, name in zip(DISK_LETTERS, disk_names):
        (by_id / f"virtio-{name}").symlink_to(f"../../ubd{letter}")
    (directory / "fd").symlink_to("/proc/self/fd")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        (directory / name).symlink_to(f"fd/{number}")
