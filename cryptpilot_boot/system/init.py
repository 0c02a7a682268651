"""The init system. Uses: systemctl, systemd-fstab-generator; unshare, mount."""

from __future__ import annotations

import os
from pathlib import Path

from cryptpilot_boot import log, paths
from cryptpilot_boot.errors import CryptpilotError, ProgramError, printable
from cryptpilot_boot.system import private
from cryptpilot_boot.system.run import run

_INITRD = Path("/etc/initrd-release")
_NEXT_ROOT = Path("/sysroot")
# Units that keep dracut's main loop from beginning until there is a network: of dracut 054, NetworkManager 1.54, dracut
# 106.
_NETWORK_WAITS = (
    "nm-wait-online-initrd.service",
    "NetworkManager-wait-online-initrd.service",
    "systemd-networkd-wait-online.service",
)
_NEED_NETWORK = "rd.neednet"
_COMMAND_LINES = Path("/etc/cmdline.d")
_OURS = "95cryptpilot.conf"
_NOT_LOADED = 5  # systemctl(1), "Exit status"
_FSTAB = Path("/etc/fstab")
_CRYPTTAB = Path("/etc/crypttab")
_FSTAB_GENERATOR = "/usr/lib/systemd/system-generators/systemd-fstab-generator"
# The mounts of unshare(1) are private: no other process sees this one, and it ends with the program.
_WITH_FSTAB = f'mount --bind "$1" {_FSTAB} && shift && exec "$@"'
_SYSTEMD = Path("/run/systemd/system")  # sd_booted(3)
_KERNEL_LOG = "/dev/kmsg"
_WARNING = "<28>"  # LOG_DAEMON | LOG_WARNING, <sys/syslog.h>
_LONGEST_LINE = 800  # characters; the kernel takes 1 KiB


def in_initrd() -> bool:
    """Tell whether this is an initrd, by the file that systemd itself checks."""
    return _INITRD.exists()


def runs_systemd() -> bool:
    """Tell whether systemd is this system's first process; see sd_booted(3)."""
    return _SYSTEMD.exists()


def stop_boot() -> None:
    """Give up on this boot: what dracut does then (a shell, or rd.emergency=) is the administrator's choice.

    The same job as OnFailure=emergency.target would start, but only when it is known that the boot cannot go on. In an
    initrd without systemd our hook for dracut's main loop does it, once this process has ended; what it looks for is
    renamed, since there may be no room for another file. Raises ProgramError and OSError.
    """
    if not runs_systemd():
        try:
            paths.MAY_STOP_BOOT.rename(paths.STOP_BOOT)
        except FileNotFoundError:
            paths.STOP_BOOT.touch()
        return
    run(["systemctl", "--no-block", "--job-mode=replace-irreversibly", "start", "emergency.target"], finish=True)


def say_late() -> None:
    """In an initrd, end dracut's wait for a network, unless other modules have requested one too.

    What brings the network up goes on. The file is for our hooks in dracut's main loop. Raises ProgramError, OSError.
    """
    private.directory(paths.LATE.parent, private.PUBLIC_DIRECTORY)
    paths.LATE.touch()
    if runs_systemd() and not _others_need_network():
        # also when what was at work has just been ended
        run(["systemctl", "--no-block", "--quiet", "stop", *_NETWORK_WAITS], accept=(0, _NOT_LOADED), finish=True)


def say_over() -> None:
    """In an initrd, tell the hooks that the agent no longer needs a network. Raises OSError."""
    private.directory(paths.OVER.parent, private.PUBLIC_DIRECTORY)
    paths.OVER.touch()


def _others_need_network() -> bool:
    files = [path for path in _COMMAND_LINES.glob("*.conf") if path.name != _OURS]
    return any(_NEED_NETWORK in path.read_text(errors="replace") for path in (Path("/proc/cmdline"), *files))


def kernel_log(text: str, to: str = _KERNEL_LOG) -> None:
    """Write a line to the system's log: a generator has no other output, see systemd.generator(7)."""
    with log.telling("a line for the kernel's log"):  # a container has none
        descriptor = os.open(to, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(
                descriptor, f"{_WARNING}cryptpilot: {printable(text)[:_LONGEST_LINE]}\n".encode("utf-8", "replace")
            )
        finally:
            os.close(descriptor)


def kernel_command_line() -> str:
    """Return the kernel's command line; in an initrd after what dracut has in its image, as dracut reads it.

    A host-only image may have `root=` there. See dracut.cmdline(7).
    """
    files = [*sorted(Path("/etc/cmdline.d").glob("*.conf")), Path("/etc/cmdline")] if in_initrd() else []
    texts = [path.read_text(errors="replace") for path in files if path.exists()]
    return " ".join([*texts, Path("/proc/cmdline").read_text(errors="replace")])


def fstab() -> str:
    """Return this system's fstab."""
    try:
        return _FSTAB.read_text(errors="surrogateescape")
    except FileNotFoundError:
        return ""


def crypttab() -> str:
    """Return this system's crypttab; "" if systemd could not read it either."""
    try:
        # as it is: to systemd a carriage return ends a line, but a reader that counts lines does not see it so
        return _CRYPTTAB.read_bytes().decode(errors="surrogateescape")
    except OSError:
        return ""


def resolve(path: str) -> str:
    """Return where a path leads through symbolic links, whether anything is there or not; other words as they are."""
    # no path has a NUL in it, though a damaged fstab may
    return os.path.realpath(path) if path.startswith("/") and "\0" not in path else path


def generate_mounts(fstab_text: str, directory: Path) -> None:
    """Let systemd itself make the units of an fstab, in an empty directory.

    SYSTEMD_FSTAB gives its generator our text. systemd 239 does not know that variable: it reads the true fstab, and
    each unit says so. Then our text replaces /etc/fstab, in a separate mount namespace. That is not tried first, since
    SELinux may keep mount(8) from mounting on a file. Raises CryptpilotError.
    """
    file = directory / ".fstab"
    generator = [_FSTAB_GENERATOR, *3 * [str(directory)]]
    environment = {"SYSTEMD_PROC_CMDLINE": ""}
    try:
        private.write(file, fstab_text)
        run(generator, env={**environment, "SYSTEMD_FSTAB": str(file)})
        if not _say_fstab(directory, file):
            _empty(directory, file)
            run(["unshare", "--mount", "sh", "-c", _WITH_FSTAB, "sh", str(file), *generator], env=environment)
        file.unlink()
    except OSError as error:
        raise CryptpilotError(f"units of mounts cannot be made in {directory}: {error.strerror}") from None


def _say_fstab(directory: Path, file: Path) -> bool:
    """Have units made from `file` say that it was /etc/fstab; False if one says so already. Raises OSError."""
    source = f"SourcePath={_FSTAB}\n"
    texts = {path: path.read_text(errors="surrogateescape") for path in _files(directory) if path != file}
    if any(source in text for text in texts.values()):
        return False
    for path, text in texts.items():
        # or else systemd looks for changes in a file that is gone
        private.write(path, text.replace(f"SourcePath={file}\n", source), private.PUBLIC_FILE)
    return True


def _empty(directory: Path, keep: Path) -> None:
    import shutil  # systemd 239 alone has this done, and with it come the decompressors

    for path in directory.iterdir():
        if path != keep:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file() and not path.is_symlink()]


def is_mounted_for_pivot(where: str) -> bool:
    """Tell whether something is mounted where the system that comes next will have `where`."""
    return (_NEXT_ROOT / where.lstrip("/")).is_mount()


def stop_unit(name: str) -> None:
    """Have a unit that may be active end; does nothing where systemd does not run."""
    if runs_systemd():
        run(["systemctl", "--no-block", "--quiet", "stop", name], accept=(0, _NOT_LOADED))


def next_fstab() -> str | None:
    """In an initrd, return the fstab of the system that comes next; None while its root is not mounted."""
    if not _NEXT_ROOT.is_mount():
        return None
    try:
        return (_NEXT_ROOT / "etc/fstab").read_text(errors="replace")
    except FileNotFoundError:
        return ""


def milestones() -> dict[str, float]:
    """Return when the parts of this boot began, by name, in seconds since power-on; see org.freedesktop.systemd1(5).

    "kernel"; "initrd"; "pivot", when systemd starts again from the root file system ("userspace" where there was no
    initrd); "finished", when the last job of the boot was done. What did not happen yet is left out. Empty if the init
    system cannot be asked: it is not systemd, as in some initrds, or does not answer.
    """
    try:
        _, text = run(["systemctl", "show", *(f"--property={name}" for name in _MILESTONES)])
    except ProgramError:
        return {}  # they adorn a report that says the rest without them
    values = dict(line.partition("=")[::2] for line in text.splitlines())
    times = {name: int(values[key]) / 1e6 for key, name in _MILESTONES.items() if values.get(key, "").isdecimal()}
    # systemd's clock here is CLOCK_MONOTONIC, which is the log's until a machine is suspended; the kernel begins at 0
    found = {name: seconds for name, seconds in times.items() if seconds or name == "kernel"}
    if "initrd" not in found and "pivot" in found:
        found["userspace"] = found.pop("pivot")
    elif found.get("pivot") == found.get("initrd"):
        found.pop("pivot", None)  # this is the initrd's systemd, to which its own start is both
    return found


_MILESTONES = {
    "KernelTimestampMonotonic": "kernel",
    "InitRDTimestampMonotonic": "initrd",
    "UserspaceTimestampMonotonic": "pivot",
    "FinishTimestampMonotonic": "finished",
}
