"""Units that have systemd pass over what competes with the volumes, see units.competing. Pure.

What is known to compete when a generator runs is replaced by a unit that does nothing: generators run side by side, and
the early directory goes before where systemd-cryptsetup-generator and systemd-gpt-auto-generator write. At that time
udev may not have given all devices their names. So each other unit of systemd-cryptsetup is looked at again when its
device is there: an ExecCondition= asks whether that is a volume's. systemd has it since version 243.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot import paths
from cryptpilot_boot.names import escape, escape_path, unit

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from cryptpilot_boot.units.competing import Competitor

DROP_IN = "systemd-cryptsetup@.service.d/45-cryptpilot.conf"
"""Where `unless_ours` belongs, below a directory of units: it holds for all of systemd-cryptsetup."""
# Where there is no program, nothing is ours: what cannot be run would have systemd pass over every unit.

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
    """Return the units that take the place of those that systemd-cryptsetup-generator makes, by name."""
    made = {f"systemd-cryptsetup@{escape(one.mapping)}.service": one.volume for one in competitors if one.mapping}
    return {name: _NOTHING.format(volume=volume) for name, volume in made.items() if not unit(name)}


def short_waits(competitors: Sequence[Competitor], volumes: Collection[str]) -> dict[str, str]:
    """Return drop-ins for the devices that do not appear because of that: what still mounts one fails soon."""
    devices = {f"{escape_path(f'/dev/mapper/{one.mapping}')}.device" for one in competitors if one.mapping}
    devices -= {f"{escape_path(f'/dev/mapper/{name}')}.device" for name in volumes}
    return {f"{name}.d/45-cryptpilot.conf": _WAIT for name in sorted(devices) if not unit(f"{name}.d")}


def unless_ours(devices: Iterable[str]) -> str:
    """Return the drop-in by which no unit of systemd-cryptsetup is started whose device is one of these.

    devices: paths, as in the volumes' files.
    """
    return f"[Service]\n{condition(devices)}\n"


def condition(devices: Iterable[str]) -> str:
    """Return the setting in that drop-in, for who writes it in a shell."""
    return f"ExecCondition={_UNLESS_OURS} {' '.join(map(_argument, devices))}"


def _argument(text: str) -> str:
    """Write a word of a command line; see systemd.service(5), "Command lines"."""

    def code(byte: int) -> str:
        char = chr(byte)
        if char in "%$":
            return char * 2
        return char if byte < 128 and (char.isalnum() or char in "/._:@+=,-") else f"\\x{byte:02x}"

    return "".join(map(code, text.encode("utf-8", "surrogateescape")))
