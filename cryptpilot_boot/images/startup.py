"""What an image needs to start the agent, to ask a person for a key, and to end a boot that fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.images.image import kernel_parameters
from cryptpilot_boot.images.remedy import REBUILD, Finding

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

UNIT_DIRECTORY = "etc/systemd/system"
UNIT = "cryptpilot-initrd.service"
PROGRAM_PLACES = ("usr/sbin", "usr/bin", "sbin", "bin")

_WANTS = f"{UNIT_DIRECTORY}/initrd.target.wants/{UNIT}"
_UNIT_PLACES = ("usr/lib/systemd/system", "lib/systemd/system", "etc/systemd/system")
_SYSTEMD_PLACES = ("usr/lib/systemd/systemd", "lib/systemd/systemd")
# Units that waited for a device without limit, and the shutdown for them: see initrd_hooks/cryptpilot-shutdown.conf.
_WAITING_UNITS = ("systemd-fsck-root", "systemd-fsck@", "systemd-makefs@", "systemd-mkswap@", "systemd-growfs@")
_SHUTDOWN = "etc/systemd/system/{unit}.service.d/cryptpilot-shutdown.conf"
# The units that ask a person for a key on the console, in an image with systemd.
_ASK_PROGRAMS = ("systemd-ask-password", "systemd-tty-ask-password-agent")
_ASK_UNITS = ("systemd-ask-password-console.path", "systemd-ask-password-console.service")
_ASK_WANTS = f"sysinit.target.wants/{_ASK_UNITS[0]}"
_HOOK_PLACES = ("", "usr/", "var/")
_HOOKS = "lib/dracut/hooks/*/*cryptpilot-start.sh"
_NO_SHELL = "usr/bin/cryptpilot-no-shell"
_NO_SHELL_HOOKS = "lib/dracut/hooks/*/*cryptpilot-emergency.sh"


def not_started(tree: Path) -> Iterator[Finding]:
    """Find out whether the agent starts at boot: by a unit, or by a hook of dracut if the image has no systemd."""
    if _has_systemd(tree):
        if not any((tree / place / UNIT).exists() for place in _UNIT_PLACES):
            yield Finding(f"{UNIT} is missing, so nothing starts the agent", REBUILD)
        elif not (tree / _WANTS).is_symlink():
            yield Finding(f"{UNIT} is not enabled, so nothing starts the agent", REBUILD)
    elif not any(True for place in _HOOK_PLACES for _ in tree.glob(place + _HOOKS)):
        yield Finding("it has neither systemd nor a hook of cryptpilot, so nothing starts the agent", REBUILD)


def not_shut_down(tree: Path) -> Iterator[Finding]:
    """Find out whether a systemd of any version can shut a failed boot down."""
    if _has_systemd(tree) and not all((tree / _SHUTDOWN.format(unit=unit)).is_file() for unit in _WAITING_UNITS):
        yield Finding("cryptpilot-shutdown.conf is missing, so a boot that fails may hang", REBUILD)


def shell_given(tree: Path) -> Iterator[Finding]:
    """Find out whether a failed boot gives a root shell on the console."""
    hooks = {path.parent.name for place in _HOOK_PLACES for path in tree.glob(place + _NO_SHELL_HOOKS)}
    if "rd.shell=0" not in kernel_parameters(tree) or not (tree / _NO_SHELL).exists() or "emergency" not in hooks:
        yield Finding("it gives a root shell on the console when a boot fails", REBUILD)


def cannot_ask(tree: Path) -> Iterator[Finding]:
    """Find out whether a person can be asked for a key. Without systemd, the agent itself asks."""
    if not _has_systemd(tree):
        return
    programs = (name for name in _ASK_PROGRAMS if not any((tree / p / name).exists() for p in PROGRAM_PLACES))
    units = (name for name in _ASK_UNITS if not any((tree / place / name).exists() for place in _UNIT_PLACES))
    for name in (*programs, *units):
        yield Finding(f"{name} is missing, so no key can be asked for on the console", REBUILD)
    if not any((tree / place / _ASK_WANTS).is_symlink() for place in _UNIT_PLACES):
        yield Finding(f"{_ASK_UNITS[0]} is not enabled, so no key can be asked for on the console", REBUILD)


def _has_systemd(tree: Path) -> bool:
    return any((tree / place).exists() for place in _SYSTEMD_PLACES)
