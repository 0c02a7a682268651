"""What systemd has to know of the volumes: units as systemd.generator(7) writes them. Pure.

An fstab line needs neither `_netdev` nor `nofail` to get on with a volume:

- the device of a volume requires the volume's unit, so that who waits for it has it opened, and hears at once when that
  fails; the device itself is given as long as the volume may take, which for one that is made anew has no limit;
- what is mounted of a volume is wanted by local-fs.target rather than required: if it fails it fails by itself, and
  does not send the machine to emergency mode;
- where the key comes over the network and the volume is not open yet, the line is treated as if it said `_netdev`:
  local-fs.target would wait for the volume, the volume for the network, and the network for local-fs.target. But not
  where systemd's early units need it, as /var: they would wait for the network, and it for them. It remains a local
  one, and fails soon.

All that holds too for what is mounted below such a mount point, or from it, as a bind mount is.

A volume with `required = true` is the opposite: if its mount fails, the boot stops before services are started, which
would write into the empty mount point. Its lines, and those of what it is mounted on, stay with local-fs.target, which
requires them as systemd has it by itself.

What would open a volume's device beside us is passed over, see units.passing_over.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Callable

from cryptpilot_boot.names import escape, escape_path
from cryptpilot_boot.names import unit as unit_name
from cryptpilot_boot.units import fstab, passing_over

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.units.competing import Competitor
    from cryptpilot_boot.units.fstab import Entry

_TEMPLATE = "/usr/lib/systemd/system/cryptpilot@.service"
_NETDEV = "_netdev"
# Beyond the helper's own deadline, so that what it has to say of a failure comes first.
_MARGIN = 30  # seconds
# What has its key over the network, and is needed before there may be one: time enough where the network is up before
# local file systems are, as with systemd-networkd, and no more, for everywhere else it is in vain.
_EARLY = 15  # seconds
# local-fs.target has this of its own. Elsewhere it is for a target of ours: what else belongs there may fail.
_STOP_BOOT = "[Unit]\nOnFailure=emergency.target\nOnFailureJobMode=replace-irreversibly\n"
# In systemd 240 and older the check of a file system goes on waiting for its volume while the machine shuts down, which
# waits for that check.
_ENDS_WITH_THE_SYSTEM = {"systemd-fsck@.service.d/45-cryptpilot.conf": "[Unit]\nConflicts=shutdown.target\n"}


@dataclasses.dataclass(frozen=True)
class Units:
    """What a generator writes.

    files: contents by path below the normal directory. links: targets by path there. netdev: fstab lines that
    systemd-fstab-generator has to read once more, as they are to be understood, for the early directory, by the names
    of the units it makes of them. masks: paths below the early directory that hide dependencies it makes, there or in
    the normal one. skipped: what has no units, since systemd cannot carry their names; a sentence each. instead: units
    by name, for the early directory, in place of those of another generator.
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

    opened: names of those that are open already. timeout: seconds they have. unusable: names of volumes of which there
    is no more than a file that cannot be used. competitors: what is to be passed over. ask: whether a person is asked
    for a key that does not come, without limit where the boot needs it. resolve: see fstab.parse.
    """
    made = Units()
    lines = fstab.parse(fstab_text, resolve)
    remote = {one.volume for one in volumes if one.needs_network} - set(opened)
    required = fstab.needed_for(lines, [one.volume for one in volumes if one.required])
    early = fstab.before_network(lines)
    hopeless = {entry.mapper_name for entry in early if not entry.is_remote and entry not in required} & remote
    for one in volumes:
        service = unit(one.volume)
        device = f"{escape_path(one.mapper_path)}.device"
        made.links[f"{device}.requires/{service}"] = _TEMPLATE
        limit = f"{_EARLY if one.volume in hopeless else timeout + _MARGIN}"
        if one.temporary and one.makefs:
            limit = "infinity"  # as making a file system may take; the unit, which this requires, hears if it fails
        if ask and one.required and one.identity:
            limit = "infinity"  # as a person may take, see boot.prompt
        # goes before the one of crypttab, 40-device-timeout.conf, and behind that of a line's own option, 50-...
        made.files[f"{device}.d/45-cryptpilot.conf"] = f"[Unit]\nJobTimeoutSec={limit}\n"
        made.links[f"cryptpilot.service.wants/{service}"] = _TEMPLATE
        # a disk that is attached later
        wants = f"{escape_path(one.dev)}.device.wants"
        if too_long := unit_name(wants):
            made.skipped.append(
                f"{one.volume} is not opened when its disk is attached: {one.dev} as a unit: {too_long}"
            )
        else:
            made.links[f"{wants}/{service}"] = _TEMPLATE
    entries = [entry for entry in lines if fstab.is_required(entry)]
    names = {one.volume for one in volumes} | set(unusable)
    if volumes:
        made.files[passing_over.DROP_IN] = passing_over.unless_ours(one.dev for one in volumes)
        made.files.update(_ENDS_WITH_THE_SYSTEM)
    made.instead.update(passing_over.replacements(competitors))
    made.files.update(passing_over.short_waits(competitors, names))
    may_fail = {one.volume for one in volumes if not one.required}
    by_other_names = {one.line for one in competitors if one.line and one.volume in may_fail}
    optional = [
        entry
        for entry in entries
        if (entry.mapper_name in names or entry.number in by_other_names) and entry not in required
    ]
    netdev = fstab.with_dependents(
        entries, [entry for entry in optional if entry.mapper_name in remote and entry not in early]
    )
    for entry in fstab.with_dependents(entries, optional):
        name, target = _unit_of(entry)
        wrong = unit_name(name) or ("a line feed is in it" if "\n" in _words(entry) else "")
        if wrong:
            made.skipped.append(f"the line of fstab that begins with {entry.source} is left as it is: {wrong}")
            continue
        made.masks.append(f"{target}.requires/{name}")
        if entry in netdev and target == "local-fs.target":
            made.netdev.setdefault(name, dataclasses.replace(entry, options=(*entry.options, _NETDEV)))
            made.masks.append(f"remote-fs.target.requires/{name}")
            target = "remote-fs.target"
        made.links[f"{target}.wants/{name}"] = f"../{name}"
    for entry in required:
        name, target = _unit_of(entry)
        if wrong := unit_name(name):
            made.skipped.append(f"the line of fstab that begins with {entry.source} is left as it is: {wrong}")
            continue
        if fstab.NOFAIL in entry.options:
            # that leaves out both the requirement and the order
            made.links[f"{target}.requires/{name}"] = f"../{name}"
            made.files[f"{name}.d/40-cryptpilot.conf"] = f"[Unit]\nBefore={target}\n"
        if target != "local-fs.target":
            stops = f"cryptpilot-{target}"
            made.files[stops] = _STOP_BOOT
            made.links[f"{stops}.requires/{name}"] = f"../{name}"
            made.links[f"{target}.wants/{stops}"] = f"../{stops}"
    return made


def _words(entry: Entry) -> str:
    return " ".join((entry.source, entry.where, entry.kind, *entry.options))


def misread(netdev: Mapping[str, Entry], found: Mapping[str, str]) -> str:
    """Tell in what systemd-fstab-generator's units are not those of the lines it was to read; "" if they are.

    found: texts of all units of mounts and swap it made, by name. One that read another fstab, or our lines in another
    way, has local-fs.target wait for the network.
    """
    for name in sorted({*netdev, *found}):
        if name not in netdev:
            return f"it made {name}, which is another line's"
        options = re.findall(r"^Options=(.*)$", found.get(name, ""), re.MULTILINE)
        if _NETDEV not in ",".join(options).split(","):
            return f"its {name} does not wait for the network" if name in found else f"it made no {name}"
    return ""


def mount(entry: Entry) -> str:
    """Return the unit of a remote mount, where systemd-fstab-generator is not to be had for it.

    It lacks the check of the file system, and what options ask for that begin with "x-systemd.".
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


def unit(volume: str) -> str:
    """Return the name of a volume's unit."""
    return f"cryptpilot@{escape(volume)}.service"


def _unit_of(entry: Entry) -> tuple[str, str]:
    """Return the unit systemd-fstab-generator makes of a line, and the target that requires it."""
    if entry.kind == "swap":
        return f"{escape_path(entry.source)}.swap", "swap.target"
    target = "remote-fs.target" if entry.is_remote else "local-fs.target"
    return f"{escape_path(entry.where)}.mount", target
