"""What else on this machine would open a volume's device, or mount it under another name. Pure.

If systemd-cryptsetup opened it too, it would ask for a passphrase, and the boot would wait for the answer. It gets its
devices from crypttab(5) and from the kernel command line, see systemd-cryptsetup-generator(8).
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Callable

from cryptpilot_boot.system import kernel_parameters
from cryptpilot_boot.units import fstab

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.units.fstab import Entry

CRYPTTAB = "/etc/crypttab"
FSTAB = "/etc/fstab"
_MAPPER = "/dev/mapper/"
_LEAST = 2  # fields of crypttab: name and device
# As systemd reads the file: these characters end a line, as a newline does; fields are separated by the others.
_LINE_ENDS = re.compile("[\r\0]")
_FIELD = re.compile("[^ \t\v\f]+")
_TAGS = {
    "UUID": "/dev/disk/by-uuid/",
    "LABEL": "/dev/disk/by-label/",
    "PARTUUID": "/dev/disk/by-partuuid/",
    "PARTLABEL": "/dev/disk/by-partlabel/",
    "ID": "/dev/disk/by-id/",  # dracut's own
}
_BY_WORD = {"uuid": "UUID", "partuuid": "PARTUUID"}
_LONGEST_QUOTED = 80  # characters

Resolve = Callable[[str], str]
Foreign = Callable[[str], bool]


@dataclasses.dataclass(frozen=True)
class Competitor:
    """A line of a file, or a word of the kernel command line, that uses a volume's device without cryptpilot.

    volume: the volume's name. place: "file:line", or the word. what: what it asks for. todo: what to do about it.
    mapping: the name below /dev/mapper that systemd-cryptsetup would give the device; "" for a line of fstab. line: the
    number of a line of fstab that cannot be mounted as it is, else 0.
    """

    volume: str
    place: str
    what: str
    todo: str
    mapping: str = ""
    line: int = 0

    @property
    def sentence(self) -> str:
        """Place, what and what to do, in one line."""
        return f"{self.place}: {self.what}; {self.todo}"


@dataclasses.dataclass(frozen=True)
class Texts:
    """The texts to search: crypttab and fstab of this system, and the kernel command line."""

    crypttab: str = ""
    command_line: str = ""
    fstab: str = ""


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of crypttab. number: from 1."""

    number: int
    name: str
    source: str


def find(
    volumes: Sequence[Volume], texts: Texts, resolve: Resolve, foreign: Foreign = lambda _: False
) -> list[Competitor]:
    """Return what competes with the volumes that are opened at boot, in the order of the texts.

    resolve: returns where a path leads through symbolic links. Until udev has made the links, only the path in the
    volume's file is known. foreign: tells whether the device of a path has a LUKS header that is not a volume's.
    Names of disks change between boots: such a device belongs to no volume, even if a volume's file names it.
    """
    devices = _Devices([one for one in volumes if one.auto_open], resolve, foreign)
    opened = [*_crypttab(texts.crypttab, devices), *_command_line(texts.command_line, devices)]
    return [*opened, *_fstab(texts.fstab, devices, {one.mapping: one for one in opened})]


def crypttab(text: str) -> list[Line]:
    """Return the lines that systemd reads, split as it does that. See its manual page of this name."""
    lines = []
    for number, whole in enumerate(text.split("\n"), 1):
        for part in _LINE_ENDS.split(whole):
            fields = _FIELD.findall(part)
            if len(fields) >= _LEAST and not fields[0].startswith("#"):
                lines.append(Line(number, fields[0], fields[1]))
    return lines


def device_path(source: str) -> str:
    """Return the path of a device that crypttab or fstab names by a tag, such as UUID=; other text unchanged."""
    tag, equals, value = source.partition("=")
    if not equals or tag not in _TAGS:
        return source
    value = value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value
    # udev writes both in lower case
    return _TAGS[tag] + _encoded(value.lower() if tag in ("UUID", "PARTUUID") else value)


def _encoded(value: str) -> str:
    """Escape a label as udev does in the name of a link."""

    def code(char: str) -> str:
        plain = ord(char) > 127 or char.isalnum() or char in "#+-.:=@_"
        return char if plain else f"\\x{ord(char):02x}"

    return "".join(map(code, value))


class _Devices:
    """Which volume a device belongs to."""

    def __init__(self, volumes: Sequence[Volume], resolve: Resolve, foreign: Foreign) -> None:
        self.names = {one.volume for one in volumes}
        self.nodes = {resolve(one.mapper_path): one.volume for one in volumes}
        self.resolve = resolve
        self.foreign = foreign
        self._owners = {path: one.volume for one in volumes for path in (resolve(one.dev), one.dev)}

    def owner(self, source: str) -> str:
        """Return the name of the volume on a device; "" without one, or if it is not known."""
        path = device_path(source)
        found = self._owners.get(path) or self._owners.get(self.resolve(path), "")
        return found if found and not self.foreign(path) else ""


def _crypttab(text: str, devices: _Devices) -> Iterator[Competitor]:
    for line in crypttab(text):
        place = f"{CRYPTTAB}:{line.number}"
        owner = devices.owner(line.source)
        if owner:
            yield _opens(owner, place, line.name, "remove the line")
        elif line.name in devices.names:
            yield Competitor(
                line.name,
                place,
                f"has systemd-cryptsetup open {quoted(line.source)} under the name of volume {line.name}",
                "ignored at boot: remove the line, or give it another name if it is another disk",
                line.name,
            )


def _command_line(text: str, devices: _Devices) -> Iterator[Competitor]:
    words = kernel_parameters.words(text)
    values = kernel_parameters.values(text)
    for word in words:
        key, _, value = word.partition("=")
        prefix = "rd.luks" if key.startswith("rd.") else "luks"
        kind = key[len(prefix) + 1 :] if key.startswith(f"{prefix}.") else ""
        if values.get(prefix, "yes").lower() in kernel_parameters.NO:
            continue
        if kind == "name":
            uuid, _, mapping = value.partition("=")
            kind = "uuid"
        else:
            uuid = value.removeprefix("keysource:").removeprefix("luks-")
            mapping = f"luks-{uuid}"
        owner = devices.owner(f"{_BY_WORD[kind]}={uuid}") if kind in _BY_WORD and uuid and mapping else ""
        if not owner and kind in _BY_WORD and mapping in devices.names:
            owner = mapping
        if owner:
            todo = "remove it from the boot loader's configuration"
            yield _opens(owner, f"kernel command line: {quoted(word)}", mapping, todo)


def _opens(volume: str, place: str, mapping: str, todo: str) -> Competitor:
    other = "" if mapping == volume else f", and write {_MAPPER}{volume} where {_MAPPER}{quoted(mapping)} is used"
    return Competitor(
        volume,
        place,
        f"has systemd-cryptsetup open the device of volume {volume}, which cryptpilot opens",
        f"ignored at boot: {todo}{other}",
        mapping,
    )


def _fstab(text: str, devices: _Devices, opened: dict[str, Competitor]) -> Iterator[Competitor]:
    for entry in fstab.parse(text):
        found = _other_name(entry, devices, opened)
        if found:
            volume, what = found
            todo = f"write {_MAPPER}{volume} there"
            line = 0 if entry.source in devices.nodes else entry.number
            yield Competitor(volume, f"{FSTAB}:{entry.number}", what, todo, line=line)


def _other_name(entry: Entry, devices: _Devices, opened: dict[str, Competitor]) -> tuple[str, str] | None:
    name = entry.mapper_name
    if name in devices.names:
        return None
    if name in opened:
        volume = opened[name].volume
        return volume, f"names {_MAPPER}{quoted(name)}, which is volume {volume} by a name that it does not get"
    owner = devices.owner(entry.source)
    if owner:
        return owner, f"names the encrypted device of volume {owner}, not its content"
    if entry.source in devices.nodes:
        volume = devices.nodes[entry.source]
        return volume, f"names volume {volume} by a number, which may change at the next boot"
    return None


def quoted(text: str) -> str:
    """Return text from outside so that a message can quote it: printable, and not too long."""
    shown = "".join(char if char.isprintable() else "?" for char in text[:_LONGEST_QUOTED])
    return shown if len(text) <= _LONGEST_QUOTED else f"{shown}..."
