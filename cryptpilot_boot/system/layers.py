"""The layers below a block device: logical volumes, RAIDs, paths and networks, as the kernel lists them in /sys."""

from __future__ import annotations

import dataclasses
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK = Path("/sys/dev/block")


@dataclasses.dataclass(frozen=True)
class LayerKind:
    """A kind of device that something has to put together. module: dracut's; tools: the package that has its tools."""

    name: str
    module: str
    tools: str


LVM = LayerKind("a logical volume", "lvm", "lvm2")
RAID = LayerKind("a RAID", "mdraid", "mdadm")
MULTIPATH = LayerKind("a multipath device", "multipath", "device-mapper-multipath; Debian: multipath-tools")
DMRAID = LayerKind("a firmware RAID", "dmraid", "dmraid")
LUKS = LayerKind("a LUKS disk", "crypt", "cryptsetup")
BCACHE = LayerKind("a bcache device", "bcache", "bcache-tools")
NBD = LayerKind("a network block device", "nbd", "nbd; Debian: nbd-client")
ISCSI = LayerKind("an iSCSI disk", "iscsi", "iscsi-initiator-utils; Debian: open-iscsi")
NVMF = LayerKind("an NVMe disk over a network", "nvmf", "nvme-cli")

# Device-mapper devices by how their UUIDs begin, as their creators name them.
_MAPPINGS = {
    r"LVM-": LVM,
    r"(part\d+-)?mpath-": MULTIPATH,
    r"(part\d+-)?DMRAID-": DMRAID,
    r"CRYPT-": LUKS,
}
# Others by their directory in /sys.
_NODES = {
    r".*/md[^/]*(/md[^/]*p\d+)?": RAID,
    r".*/bcache\d+(/.*)?": BCACHE,
    r".*/nbd\d+(/.*)?": NBD,
    r".*/session\d+/.*": ISCSI,
    r".*/nvme-fabrics/.*": NVMF,
}


@dataclasses.dataclass(frozen=True)
class Layer:
    """A device below a path, or the path's own. name: that of a mapping, "" for other devices."""

    kind: LayerKind
    name: str


def layers(path: str, block: Path = _BLOCK) -> list[Layer]:
    """Return what has to be put together before a device is there, top first; nothing when that is not known.

    The layers below a LUKS mapping are left out: the program that opens it handles them. block: the kernel's list of
    devices.
    """
    try:
        status = Path(path).stat()
    except OSError:
        return []
    if not stat.S_ISBLK(status.st_mode):
        return []
    return list(dict.fromkeys(of_node((block / f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}").resolve())))


def of_node(node: Path) -> Iterator[Layer]:
    """Yield a device's own layers and those below it, top first. node: its directory below /sys/devices."""
    uuid, name = (_line(node / "dm" / one) for one in ("uuid", "name"))
    kinds = [kind for start, kind in _MAPPINGS.items() if re.match(start, uuid)]
    kinds += [kind for expression, kind in _NODES.items() if re.fullmatch(expression, str(node))]
    for kind in kinds:
        yield Layer(kind, name)
    if LUKS in kinds:
        return
    below = [one.resolve() for one in (node / "slaves").glob("*")]
    if (node / "partition").exists():
        below.append(node.parent)
    for one in below:
        yield from of_node(one)


def _line(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
