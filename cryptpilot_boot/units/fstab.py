"""The lines of fstab(5), and which of them need which. Pure."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Callable

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

_MAPPER = "/dev/mapper/"
_LEAST = 2  # fields: source and where; getmntent(3), and so systemd, needs no other
_UNSAID = ("auto", "defaults")  # type and options where a line has none
NOFAIL = "nofail"
_NOT_AT_BOOT = ("noauto", "x-systemd.automount")
_OF_ANOTHER_TARGET = ("x-systemd.wanted-by=", "x-systemd.required-by=")
# What the initrd mounts, or systemd before any unit of ours.
_BEFORE_US = ("/", "/usr")
_MOUNTED_ON = "x-systemd.requires-mounts-for="
# What systemd and mount(8) take for a network file system; the same types by FUSE count too.
_REMOTE_KINDS = {
    *("afs", "ceph", "cifs", "davfs", "gfs", "gfs2", "glusterfs", "lustre", "ncp", "ncpfs"),
    *("nfs", "nfs4", "ocfs2", "orangefs", "pvfs2", "smb3", "smbfs", "sshfs"),
}

# What systemd's own units require to be mounted before basic.target, by RequiresMountsFor=, StateDirectory=,
# PrivateTmp= and the like, and what other units require that start as early. Most of what brings a network up
# starts later.
_BEFORE_NETWORK = (
    "/tmp",  # noqa: S108 - nothing is put there
    "/var/lib/NetworkManager",
    "/var/lib/cloud",
    "/var/lib/dbus",
    "/var/lib/dhclient",
    "/var/lib/dhcp",
    "/var/lib/private/systemd",
    "/var/lib/systemd",
    "/var/log/audit",
    "/var/log/journal",
    "/var/log/wtmp",
    "/var/tmp",  # noqa: S108
)


@dataclasses.dataclass(frozen=True)
class Entry:
    """A line. number: from 1. rest: what follows the options: when to dump and to check it, a comment."""

    source: str
    where: str
    kind: str
    options: tuple[str, ...]
    rest: tuple[str, ...] = ()
    number: int = dataclasses.field(default=0, compare=False)

    @property
    def mapper_name(self) -> str:
        """The name of the source below /dev/mapper; "" for a source elsewhere."""
        return mapper_name(self.source)

    @property
    def is_remote(self) -> bool:
        """Whether systemd mounts it after the network is up."""
        return "_netdev" in self.options or self.kind.removeprefix("fuse.") in _REMOTE_KINDS

    @property
    def line(self) -> str:
        """The line as text, with all four fields."""
        fields = (self.source, self.where, self.kind, ",".join(self.options), *self.rest)
        return " ".join(map(_encoded, fields))


def parse(text: str, resolve: Callable[[str], str] = lambda path: path) -> list[Entry]:
    """Return the lines that can be read; mount(8) complains of the others.

    resolve: returns where a path leads through symbolic links, since systemd names a mount by that.
    """
    entries = []
    for number, line in enumerate(text.split("\n"), 1):
        fields = [_decoded(field) for field in re.findall(r"[^ \t]+", line)]
        if len(fields) >= _LEAST and not fields[0].startswith("#"):
            source, where, kind, options, *rest = (*fields, *_UNSAID[len(fields) - _LEAST :])
            entries.append(Entry(source, resolve(where), kind, tuple(options.split(",")), tuple(rest), number))
    return entries


def with_dependents(entries: Sequence[Entry], chosen: Sequence[Entry]) -> list[Entry]:
    """Return the chosen lines and those that cannot be mounted without them, in the order of fstab."""
    found = list(chosen)
    for parent in found:  # the list grows while it is read
        found += [entry for entry in entries if entry not in found and _needs(entry, parent)]
    return [entry for entry in entries if entry in found]


def with_needs(entries: Sequence[Entry], chosen: Sequence[Entry]) -> list[Entry]:
    """Return the chosen lines and those without which they cannot be mounted, in the order of fstab."""
    found = list(chosen)
    for child in found:  # the list grows while it is read
        found += [entry for entry in entries if entry not in found and _needs(child, entry)]
    return [entry for entry in entries if entry in found]


def is_mounted_at_boot(entry: Entry) -> bool:
    """Tell whether local-fs.target, remote-fs.target or swap.target mounts a line."""
    return (
        entry.where not in _BEFORE_US
        and (entry.where.startswith("/") or entry.kind == "swap")
        and not set(entry.options) & set(_NOT_AT_BOOT)
        and not any(option.startswith(_OF_ANOTHER_TARGET) for option in entry.options)
    )


def is_required(entry: Entry) -> bool:
    """Tell whether systemd has one of these targets require a line."""
    return NOFAIL not in entry.options and is_mounted_at_boot(entry)


def needed_for(entries: Sequence[Entry], names: Collection[str]) -> list[Entry]:
    """Return the lines without which the boot must stop: those of required volumes, and what these are mounted on.

    names: of the required volumes. `nofail` in their lines does not count: writing into an empty mount point is worse.
    """
    chosen = [entry for entry in entries if entry.mapper_name in names and is_mounted_at_boot(entry)]
    return [entry for entry in with_needs(entries, chosen) if entry in chosen or is_required(entry)]


def before_network(entries: Sequence[Entry]) -> list[Entry]:
    """Return swap, the lines that systemd needs before there may be a network, and what these lines need.

    If one of them waited for the network, there would be an ordering cycle, which systemd breaks at random.
    """
    return [entry for entry in entries if any(map(_is_early, with_dependents(entries, [entry])))]


def _is_early(entry: Entry) -> bool:
    if entry.kind == "swap":
        return True
    where = entry.where.rstrip("/") + "/"
    return any(f"{path}/".startswith(where) or where.startswith(f"{path}/") for path in _BEFORE_NETWORK)


def _needs(entry: Entry, parent: Entry) -> bool:
    paths = [entry.where, entry.source]
    paths += [option[len(_MOUNTED_ON) :] for option in entry.options if option.startswith(_MOUNTED_ON)]
    inside = parent.where.rstrip("/") + "/"
    return parent.where.startswith("/") and any(f"{path}/".startswith(inside) for path in paths)


def _decoded(field: str) -> str:
    """Replace the escapes that getmntent(3) knows, and no others, by their characters."""
    return re.sub(r"\\(040|011|012|134|\\)", lambda code: "\\" if code[1] == "\\" else chr(int(code[1], 8)), field)


def _encoded(field: str) -> str:
    return re.sub(r"[ \t\n\\]", lambda char: f"\\{ord(char[0]):03o}", field)


def mapper_name(device: str) -> str:
    """Return the name of a device below /dev/mapper; "" for a device elsewhere."""
    prefix, name = device[: len(_MAPPER)], device[len(_MAPPER) :]
    return name if prefix == _MAPPER else ""
