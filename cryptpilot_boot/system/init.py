"""The init system. Uses: systemctl."""

from __future__ import annotations

from pathlib import Path

from cryptpilot_boot.system.run import run

_INITRD = Path("/etc/initrd-release")


def in_initrd() -> bool:
    """Tell whether this is an initrd, by the sign systemd itself goes by."""
    return _INITRD.exists()


def stop_boot() -> None:
    """Give up on this boot: what dracut does then (a shell, or rd.emergency=) is the administrator's choice.

    The same job as OnFailure=emergency.target would start, but only when it is known that the boot cannot go on.
    """
    run(["systemctl", "--no-block", "--job-mode=replace-irreversibly", "start", "emergency.target"])


def kernel_command_line() -> str:
    """Return the kernel's command line."""
    return Path("/proc/cmdline").read_text()
