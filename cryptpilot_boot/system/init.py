"""The init system. Uses: systemctl, systemd-fstab-generator."""

from __future__ import annotations

from pathlib import Path

from cryptpilot_boot.system import process
from cryptpilot_boot.system.run import run

_INITRD = Path("/etc/initrd-release")
_NEXT_ROOT = Path("/sysroot")
_FSTAB = Path("/etc/fstab")
_FSTAB_GENERATOR = "/usr/lib/systemd/system-generators/systemd-fstab-generator"


def in_initrd() -> bool:
    """Tell whether this is an initrd, by the sign systemd itself goes by."""
    return _INITRD.exists()


def stop_boot() -> None:
    """Give up on this boot: what dracut does then (a shell, or rd.emergency=) is the administrator's choice.

    The same job as OnFailure=emergency.target would start, but only when it is known that the boot cannot go on.
    """
    run(["systemctl", "--no-block", "--job-mode=replace-irreversibly", "start", "emergency.target"], finish=True)


def kernel_command_line() -> str:
    """Return the kernel's command line; in an initrd after what dracut has in its image, as dracut reads it.

    A host-only image may have `root=` there. See dracut.cmdline(7).
    """
    files = [*sorted(Path("/etc/cmdline.d").glob("*.conf")), Path("/etc/cmdline")] if in_initrd() else []
    texts = [path.read_text(errors="replace") for path in files if path.exists()]
    return " ".join([*texts, Path("/proc/cmdline").read_text()])


def fstab() -> str:
    """Return this system's fstab."""
    try:
        return _FSTAB.read_text(errors="surrogateescape")
    except FileNotFoundError:
        return ""


def generate_mounts(fstab_text: str, directory: Path) -> None:
    """Have systemd itself make the units of what an fstab says, into a directory.

    See SYSTEMD_FSTAB and SYSTEMD_PROC_CMDLINE among systemd's known environment variables.
    """
    lines = process.anonymous_file("fstab", fstab_text.encode(errors="surrogateescape"))
    descriptor = int(lines.rpartition("/")[2])
    variables = [f"SYSTEMD_FSTAB={lines}", "SYSTEMD_PROC_CMDLINE="]
    run(["env", *variables, _FSTAB_GENERATOR, *3 * [str(directory)]], pass_fds=[descriptor])


def next_fstab() -> str | None:
    """In an initrd, return the fstab of the system that comes next; None while its root is not mounted."""
    if not _NEXT_ROOT.is_mount():
        return None
    try:
        return (_NEXT_ROOT / "etc/fstab").read_text(errors="replace")
    except FileNotFoundError:
        return ""
