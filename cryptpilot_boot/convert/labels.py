"""SELinux in an image: new files get the labels of the image's own policy. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cryptpilot_boot.convert.facts import refused

if TYPE_CHECKING:
    from cryptpilot_boot.convert.facts import InstalledSystem

CONFIGURATION = "/etc/selinux/config"
SETFILES = "/usr/sbin/setfiles"
_DEFAULT = "targeted"  # selinux_config(5), and SELINUXDEFAULT in libselinux/src/selinux_config.c
_ON = re.compile(r"^\s*SELINUX=(?!disabled\s*$)", re.MULTILINE | re.IGNORECASE)
_TYPE = re.compile(r"^\s*SELINUXTYPE=(\S+)[ \t]*$", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


def contexts(configuration: str) -> str:
    """Return the path of what says how files are labelled, "" where SELinux is off. configuration: SELinux's own.

    Raises CryptpilotError for a policy whose name is no name of a directory.
    """
    if not _ON.search(configuration):
        return ""
    found = _TYPE.findall(configuration)
    name = found[-1] if found else _DEFAULT
    if not _NAME.fullmatch(name):
        raise refused(f"{CONFIGURATION} in it names a policy in an unknown way", "see SELINUXTYPE= in it")
    return f"/etc/selinux/{name}/contexts/files/file_contexts"


def require(system: InstalledSystem) -> None:
    """Raise CryptpilotError where there is SELinux, and nothing to label files with."""
    wanted = contexts(system.selinux)
    missing = [path for path in (SETFILES, wanted) if path not in {*system.present, system.contexts}]
    if wanted and missing:
        raise refused(
            f"it has SELinux and no {missing[0]}: new files would have no labels",
            "install policycoreutils and the policy in it, or disable SELinux there first",
        )
