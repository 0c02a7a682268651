"""Units by which systemd passes over what competes with the volumes, see units.competing. Pure.

A competitor that is known when the generator runs is replaced by a unit that does nothing. Generators run at the same
time; the early directory overrides those where systemd-cryptsetup-generator and systemd-gpt-auto-generator write.

Then udev may not have named all devices yet. So every other unit of systemd-cryptsetup is checked again when its device
is there: an ExecCondition= asks whether the device belongs to a volume. systemd has this setting since version 243.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot import paths
from cryptpilot_boot.names import escape, escape_path, unit

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from cryptpilot_boot.units.competing import Competitor

DROP_IN = "systemd-cryptsetup@.service.d/45-cryptpilot.conf"
"""Where `unless_ours` is put, below a directory of units. It holds for all units of systemd-cryptsetup."""
# If the program is missing, the unit is started: systemd would pass over every unit if the condition could not run.

_UNLESS_OURS = f"/bin/sh -c '[ ! -x {paths.UNLESS_OURS} ] || exec {paths.UNLESS_OURS} \"$$@\"' sh %n"
_NOTHING = """\
# In place of what crypttab or the kernel command line asks for: see cryptpilot show.
[Unit]
Description=Nothing: volume {volume} is opened by cryptpilot
DefaultDependencies=no
IgnoreOnIsolate=yes
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
"""
_WAIT = "[Unit]\nJobTimeoutSec=5\n"


def replacements(competitors: Sequence[Competitor]) -> dict[str, str]:
    """Return the units that replace those of systemd-cryptsetup-generator, by name."""
    made = {f"systemd-cryptsetup@{escape(one.mapping)}.service": one.volume for one in competitors if one.mapping}
    return {name: _NOTHING.format(volume=volume) for name, volume in made.items() if not unit(name)}


def short_waits(competitors: Sequence[Competitor], volumes: Collection[str]) -> dict[str, str]:
    """Return drop-ins for the devices that therefore do not appear: a mount of such a device fails soon."""
    devices = {f"{escape_path(f'/dev/mapper/{one.mapping}')}.device" for one in competitors if one.mapping}
    devices -= {f"{escape_path(f'/dev/mapper/{name}')}.device" for name in volumes}
    return {f"{name}.d/45-cryptpilot.conf": _WAIT for name in sorted(devices) if not unit(f"{name}.d")}


def unless_ours(devices: Iterable[str]) -> str:
    """Return the drop-in that keeps units of systemd-cryptsetup from starting for these devices.

    devices: paths, as in the volumes' files.
    """
    return f"[Service]\n{condition(devices)}\n"


def condition(devices: Iterable[str]) -> str:
    """Return the setting in that drop-in, for a script that writes the drop-in itself."""
    return f"ExecCondition={_UNLESS_OURS} {' '.join(map(_argument, devices))}"


def _argument(text: str) -> str:
    """Escape a word of a command line; see systemd.service(5), "Command lines"."""

    def code(byte: int) -> str:
        char = chr(byte)
        if char in "%$":
            return char * 2
        return char if byte < 128 and (char.isalnum() or char in "/._:@+=,-") else f"\\x{byte:02x}"

    return "".join(map(code, text.encode("utf-8", "surrogateescape")))
