"""The init system. Uses: systemctl."""

from __future__ import annotations

from pathlib import Path

from cryptpilot_boot.system.run import run

_INITRD = Path("/etc/initrd-release")
_NEXT_ROOT = Path("/sysroot")


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


def next_fstab() -> str | None:
    """In an initrd, return the fstab of the system that comes next; None while its root is not mounted."""
    if not _NEXT_ROOT.is_mount():
        return None
    try:
        return (_NEXT_ROOT / "etc/fstab").read_text(errors="replace")
    except FileNotFoundError:
        return ""
