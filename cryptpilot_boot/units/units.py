"""Units for the volumes, as systemd.generator(7) writes them. Pure.

A line of fstab that mounts from a volume needs neither `_netdev` nor `nofail`:

- The device of a volume requires the volume's unit. So a unit that waits for the device triggers the opening, and fails
  at once when the opening fails. The device has as much time as the volume may take, which is unlimited for a volume
  that is formatted at each boot.
- local-fs.target wants what is mounted from a volume, and does not require it. A mount that fails does not send the
  machine to emergency mode.
- If the key comes over the network and the volume is not open yet, the line is treated as if it said `_netdev`.
  Otherwise local-fs.target waits for the volume, the volume for the network, and the network for local-fs.target.
- A line that systemd's early units need, such as /var, stays local and fails soon. With `_netdev` those units would
  wait for the network, and the network for them.

The same holds for what is mounted below such a mount point, or from it, as a bind mount is.

A volume with `required = true` is the opposite. If its mount fails, the boot stops before services are started, since
they would write into the empty mount point. Its lines, and those of what it is mounted on, stay with local-fs.target,
which requires them by default.

Other programs' units that would open a volume's device are skipped; see units.passing_over.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Callable

from cryptpilot_boot.names import escape_path, volume_unit
from cryptpilot_boot.names import unit as unit_name
from cryptpilot_boot.units import fstab, passing_over

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.units.competing import Competitor
    from cryptpilot_boot.units.fstab import Entry

_TEMPLATE = "/usr/lib/systemd/system/cryptpilot@.service"
_NETDEV = "_netdev"
# More than the helper's own deadline, so that its message about a failure comes first.
_MARGIN = 30  # seconds
# For a volume whose key comes over the network, and which is needed before there may be one. It is enough where the
# network is up before local file systems, as with systemd-networkd. Everywhere else the wait only delays the boot.
_EARLY = 15  # seconds
# local-fs.target has this by default. Another target gets a unit of ours that has it: not all that the target mounts
# has to stop the boot.
_STOP_BOOT = "[Unit]\nOnFailure=emergency.target\nOnFailureJobMode=replace-irreversibly\n"
# In systemd 240 and older a check of a file system waits for its volume while the machine shuts down, and the shutdown
# waits for the check.
_ENDS_WITH_THE_SYSTEM = {"systemd-fsck@.service.d/45-cryptpilot.conf": "[Unit]\nConflicts=shutdown.target\n"}


@dataclasses.dataclass(frozen=True)
class Units:
    """What a generator writes.

    files: contents by path below the normal directory. links: targets by path there. masks: paths below the early
    directory that hide dependencies which systemd-fstab-generator makes there or in the normal directory. netdev: lines
    of fstab, changed, by the names of their units: systemd-fstab-generator reads them again, for the early directory.
    skipped: a sentence for each thing that has no unit, because systemd does not accept its name. instead: units by
    name, for the early directory, in place of those of another generator.
    """

    files: dict[str, str] = dataclasses.field(default_factory=dict)
    links: dict[str, str] = dataclasses.field(default_factory=dict)
    masks: list[str] = dataclasses.field(default_factory=list)
    netdev: dict[str, Entry] = dataclasses.field(default_factory=dict)
    skipped: list[str] = dataclasses.field(default_factory=list)
    instead: dict[str, str] = dataclasses.field(default_factory=dict)


def units(
    volumes: Sequence[Volume],
    fstab_text: str,
    opened: Collection[str],
    timeout: int,
    unusable: Collection[str] = (),
    competitors: Sequence[Competitor] = (),
    *,
    ask: bool = False,
    resolve: Callable[[str], str] = lambda path: path,
) -> Units:
    """Decide what to write for the volumes of the system stage.

    opened: names of those that are already open. timeout: seconds they have. unusable: names of volumes whose file
    cannot be used. competitors: the units to skip. ask: whether a person is asked for a key that does not come, without
    limit where the boot needs it. resolve: see fstab.parse.
    """
    made = Units()
    lines = fstab.parse(fstab_text, resolve)
    remote = {one.volume for one in volumes if one.needs_network} - set(opened)
    required = fstab.needed_for(lines, [one.volume for one in volumes if one.required])
    early = fstab.before_network(lines)
    too_early = {entry.mapper_name for entry in early if not entry.is_remote and entry not in required} & remote
    for one in volumes:
        _add_volume(made, one, _limit(one, _EARLY if one.volume in too_early else timeout + _MARGIN, ask=ask))
    names = {one.volume for one in volumes} | set(unusable)
    if volumes:
        made.files[passing_over.DROP_IN] = passing_over.unless_ours(one.dev for one in volumes)
        made.files.update(_ENDS_WITH_THE_SYSTEM)
    made.instead.update(passing_over.replacements(competitors))
    made.files.update(passing_over.short_waits(competitors, names))
    entries = [entry for entry in lines if fstab.is_required(entry)]
    may_fail = {one.volume for one in volumes if not one.required}
    by_other_names = {one.line for one in competitors if one.line and one.volume in may_fail}
    of_volumes = [entry for entry in entries if entry.mapper_name in names or entry.number in by_other_names]
    optional = [entry for entry in of_volumes if entry not in required]
    netdev = [entry for entry in optional if entry.mapper_name in remote and entry not in early]
    _add_optional(made, fstab.with_dependents(entries, optional), fstab.with_dependents(entries, netdev))
    _add_required(made, required)
    return made


def _limit(volume: Volume, seconds: int, *, ask: bool) -> str:
    """Return how long systemd waits for the device of a volume, as the value of JobTimeoutSec=.

    seconds: where there is a limit. Making a file system has no limit: the device requires the volume's unit, and fails
    with it. A person has no limit either, see boot.prompt.
    """
    by_a_person = ask and volume.required and volume.identity
    return "infinity" if (volume.temporary and volume.makefs) or by_a_person else str(seconds)


def _add_volume(made: Units, one: Volume, limit: str) -> None:
    """Add what opens a volume: when its device is waited for, with all others, and when its disk is attached later."""
    service = volume_unit(one.volume)
    device = f"{escape_path(one.mapper_path)}.device"
    made.links[f"{device}.requires/{service}"] = _TEMPLATE
    # overrides that of crypttab, 40-device-timeout.conf; that of an option in fstab, 50-..., overrides it
    made.files[f"{device}.d/45-cryptpilot.conf"] = f"[Unit]\nJobTimeoutSec={limit}\n"
    made.links[f"cryptpilot.service.wants/{service}"] = _TEMPLATE
    wants = f"{escape_path(one.dev)}.device.wants"
    if too_long := unit_name(wants):
        made.skipped.append(f"{one.volume} is not opened when its disk is attached: {one.dev} as a unit: {too_long}")
    else:
        made.links[f"{wants}/{service}"] = _TEMPLATE


def _add_optional(made: Units, entries: Sequence[Entry], netdev: Sequence[Entry]) -> None:
    """Add mounts that may fail: their target wants them. netdev: those that wait for the network."""
    for entry in entries:
        name, target = _unit_of(entry)
        if wrong := unit_name(name) or ("it has a line feed" if "\n" in _words(entry) else ""):
            made.skipped.append(_left(entry, wrong))
            continue
        made.masks.append(f"{target}.requires/{name}")
        if entry in netdev and target == "local-fs.target":
            made.netdev.setdefault(name, dataclasses.replace(entry, options=(*entry.options, _NETDEV)))
            made.masks.append(f"remote-fs.target.requires/{name}")
            target = "remote-fs.target"
        made.links[f"{target}.wants/{name}"] = f"../{name}"


def _add_required(made: Units, entries: Sequence[Entry]) -> None:
    """Add mounts without which the boot must stop."""
    for entry in entries:
        name, target = _unit_of(entry)
        if wrong := unit_name(name):
            made.skipped.append(_left(entry, wrong))
            continue
        if fstab.NOFAIL in entry.options:
            # that option leaves out both the requirement and the order
            made.links[f"{target}.requires/{name}"] = f"../{name}"
            made.files[f"{name}.d/40-cryptpilot.conf"] = f"[Unit]\nBefore={target}\n"
        if target != "local-fs.target":
            stops = f"cryptpilot-{target}"
            made.files[stops] = _STOP_BOOT
            made.links[f"{stops}.requires/{name}"] = f"../{name}"
            made.links[f"{target}.wants/{stops}"] = f"../{stops}"


def _left(entry: Entry, wrong: str) -> str:
    return f"the line of fstab that begins with {entry.source} is left as it is: {wrong}"


def _words(entry: Entry) -> str:
    return " ".join((entry.source, entry.where, entry.kind, *entry.options))


def misread(netdev: Mapping[str, Entry], found: Mapping[str, str]) -> str:
    """Say how systemd-fstab-generator's units differ from the lines that it was given; "" if they do not.

    found: texts of all units of mounts and swap that it made, by name. If it read another fstab, or read our lines in
    another way, local-fs.target would wait for the network.
    """
    for name in sorted({*netdev, *found}):
        if name not in netdev:
            return f"it made {name}, which is another line's"
        options = re.findall(r"^Options=(.*)$", found.get(name, ""), re.MULTILINE)
        if _NETDEV not in ",".join(options).split(","):
            return f"its {name} does not wait for the network" if name in found else f"it made no {name}"
    return ""


def mount(entry: Entry) -> str:
    """Return the unit of a remote mount, for a machine whose systemd-fstab-generator cannot make it.

    It lacks the check of the file system, and what options beginning with "x-systemd." ask for.
    """
    settings = {
        "What": entry.source,
        "Where": entry.where,
        "Type": entry.kind,
        "Options": ",".join(entry.options),
    }
    unit_lines = ["[Unit]", "SourcePath=/etc/fstab", "Before=remote-fs.target", "", "[Mount]"]
    unit_lines += [f"{key}={value.replace('%', '%%')}" for key, value in settings.items()]
    return "".join(f"{line}\n" for line in unit_lines)


def _unit_of(entry: Entry) -> tuple[str, str]:
    """Return the name of the unit that systemd-fstab-generator makes of a line, and the target that requires it."""
    if entry.kind == "swap":
        return f"{escape_path(entry.source)}.swap", "swap.target"
    target = "remote-fs.target" if entry.is_remote else "local-fs.target"
    return f"{escape_path(entry.where)}.mount", target
