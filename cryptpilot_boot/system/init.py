"""The init system. Uses: systemctl."""

from __future__ import annotations

from cryptpilot_boot.system.run import run


def stop_boot() -> None:
    """Give up on this boot: what dracut does then (a shell, or rd.emergency=) is the administrator's choice.

    The same job as OnFailure=emergency.target would start, but only when it is known that the boot cannot go on.
    """
    run(["systemctl", "--no-block", "--job-mode=replace-irreversibly", "start", "emergency.target"])
