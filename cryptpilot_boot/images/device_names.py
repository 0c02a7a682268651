"""Whether the devices of volumes get the names of the configuration in an image, too.

An image has few of this machine's udev rules. It brings up logical volumes and the like only with the dracut module for
them. If the device is missing in the initrd, the volume is opened late, in the booted system; the root never opens.
Where udev does not run, as in a container, nothing is known and nothing is reported.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot.images import remedy
from cryptpilot_boot.images.remedy import REBUILD, Finding
from cryptpilot_boot.system import layers, udev

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.system.layers import Layer
    from cryptpilot_boot.system.udev import Node, Rule

_ROOT = Path("/")
_DEV = "/dev/"
# Files of rules that dracut puts into every image.
_COMMON = {"60-persistent-storage.rules"}
# The kernel parameter that switches off each of dracut's modules; see dracut.cmdline(7).
_SWITCHES = {"lvm": "rd.lvm", "mdraid": "rd.md", "multipath": "rd.multipath", "dmraid": "rd.dm", "crypt": "rd.luks"}
# Names that distributions give a disk, the best first: they stay when it is formatted or connected elsewhere.
_STABLE = ("disk/by-id/", "disk/by-partuuid/", "disk/by-path/")


@dataclasses.dataclass(frozen=True)
class KnownDevice:
    """What this machine knows of a volume's device. node: None if udev does not know the device."""

    volume: Volume
    node: Node | None
    layers: tuple[Layer, ...]


def known(volumes: Sequence[Volume]) -> list[KnownDevice]:
    """Return what this machine knows of the devices of volumes."""
    return [KnownDevice(one, udev.node(one.dev), tuple(layers.layers(one.dev))) for one in volumes]


def need_an_image(devices: Sequence[KnownDevice], rules: Sequence[Rule]) -> bool:
    """Tell whether an image has to be unpacked to learn whether it has what a device needs. Most disks need nothing."""
    return any(one.layers or not {rule.source.name for rule in _makers(one, rules)} <= _COMMON for one in devices)


def missing(
    devices: Sequence[KnownDevice],
    tree: Path,
    modules: Collection[str],
    opened: Collection[str],
    words: Collection[str] = (),
    root: Path = _ROOT,
) -> Iterator[Finding]:
    """Find the volumes whose devices an image, unpacked at `tree`, would not find.

    modules: dracut's in the image. opened: names of the volumes that the image opens. words: kernel parameters of the
    boot loader and of the image. root: where this machine's rules are.
    """
    here, there = udev.rules(root), udev.rules(tree)
    for one in devices:
        found = [*_layers_missing(one, modules, opened, root), *_left_alone(one, modules, words)]
        yield from found or _rules_missing(one, tree, here, there, root)


def _layers_missing(
    one: KnownDevice, modules: Collection[str], opened: Collection[str], root: Path
) -> Iterator[Finding]:
    for layer in one.layers:
        kind = layer.kind
        if kind is layers.LUKS and layer.name in opened:
            continue
        if kind.module not in modules:
            add = f"echo 'add_dracutmodules+=\" {kind.module} \"' > /etc/dracut.conf.d/90-{kind.module}.conf"
            hint = remedy.dracut_module_missing(
                kind.module, f"install dracut's module {kind.module} ({kind.tools})", root
            )
            yield Finding(
                f"the volume {one.volume.volume} is late: {one.volume.dev} is {_preposition(one, layer)}{kind.name},"
                f" and dracut's module {kind.module} is not in the image",
                f"{add}, then {REBUILD}" if hint == REBUILD else hint,
            )


def _left_alone(one: KnownDevice, modules: Collection[str], words: Collection[str]) -> Iterator[Finding]:
    """Find kernel parameters by which dracut does not bring up what a device is on."""
    for layer in one.layers:
        where = (
            f"the volume {one.volume.volume} is late: {one.volume.dev} is {_preposition(one, layer)}{layer.kind.name}"
        )
        switch = f"{_SWITCHES.get(layer.kind.module, '')}=0"
        if layer.kind.module not in modules:
            continue
        if switch in words:
            yield Finding(
                f"{where}, and the kernel parameter {switch} keeps dracut from bringing it up",
                f"remove {switch} from the boot loader's configuration",
            )
        elif layer.kind is layers.LVM and not _is_asked_for(layer.name, words):
            group, volume = _lvm_name(layer.name)
            yield Finding(
                f"{where}, and the kernel parameters rd.lvm.lv and rd.lvm.vg name others to bring up",
                f"add rd.lvm.lv={group}/{volume} to the boot loader's configuration",
            )


def _is_asked_for(mapping: str, words: Collection[str]) -> bool:
    """Tell whether dracut brings up a logical volume. It brings up all, unless kernel parameters name some."""
    group, volume = _lvm_name(mapping)
    asked = [word for word in words if word.startswith(("rd.lvm.lv=", "rd.lvm.vg="))]
    return not asked or f"rd.lvm.lv={group}/{volume}" in asked or f"rd.lvm.vg={group}" in asked


def _lvm_name(mapping: str) -> tuple[str, str]:
    """Return the names of group and volume. LVM doubles each of their hyphens in the name of the mapping."""
    group, _, volume = re.sub(r"(?<!-)-(?!-)", "/", mapping.replace("--", "\0")).replace("\0", "-").partition("/")
    return group, volume


def _preposition(one: KnownDevice, layer: Layer) -> str:
    return "" if layer == one.layers[0] else "on "


def _makers(one: KnownDevice, rules: Sequence[Rule]) -> list[Rule]:
    link = one.volume.dev.removeprefix(_DEV)
    if one.node is None or link not in one.node.links:
        return []
    return [maker.rule for maker in udev.makers(link, one.node, rules)]


def _rules_missing(
    one: KnownDevice, tree: Path, here: Sequence[Rule], there: Sequence[Rule], root: Path
) -> Iterator[Finding]:
    link, node = one.volume.dev.removeprefix(_DEV), one.node
    named = _makers(one, here)
    if not named or node is None:
        return
    sources = list(dict.fromkeys(rule.source for rule in named))
    calls = [name for source in sources for name in udev.programs(source, node, here)]
    absent = [name for name in calls if udev.has_program(root, name) and not udev.has_program(tree, name)]
    files = " and ".join(map(str, sources))
    if not _carried(link, node, here, there):
        what = f"its name {one.volume.dev} is given by {files}, which is not in the image"
    elif absent:
        what = f"{files} gives it its name {one.volume.dev} by {absent[0]}, which is not in the image"
    else:
        return
    items = " ".join([*map(str, sources), *(name for name in absent if name.startswith("/"))])
    carry = f"echo 'install_items+=\" {items} \"' > /etc/dracut.conf.d/90-names.conf, then {REBUILD}"
    stable = _stable_name(node, here, there)
    rename = f'set dev = "{stable}" in {one.volume.source}, or ' if stable else ""
    yield Finding(f"the volume {one.volume.volume} is late: {what}", f"{rename}{carry}")


def _carried(link: str, node: Node, here: Sequence[Rule], there: Sequence[Rule]) -> bool:
    """Tell whether an image has a rule that matches a name as exactly as the best rule of this machine."""
    best = udev.makers(link, node, here)
    found = udev.makers(link, node, there)
    return bool(found) and (not best or found[0].exactness >= best[0].exactness)


def _stable_name(node: Node, here: Sequence[Rule], there: Sequence[Rule]) -> str:
    """Return a name that a device has in an image too; "" without one."""
    return next(
        (
            _DEV + link
            for start in _STABLE
            for link in sorted(node.links)
            if link.startswith(start) and udev.makers(link, node, here) and _carried(link, node, here, there)
        ),
        "",
    )
