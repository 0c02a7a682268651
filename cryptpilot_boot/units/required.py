"""Settings that contradict `required = true`, or keep it from stopping the boot. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.units import fstab

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.units.fstab import Entry

FSTAB = "/etc/fstab"


def doubts(one: Volume, entries: Sequence[Entry]) -> Iterator[str]:
    """Yield a sentence for each setting that weakens `required = true` of a volume, or contradicts it.

    entries: the lines of fstab.
    """
    if not one.required:
        return
    if not one.auto_open:
        yield "required = true has no effect without auto_open = true"
        return
    mine = [entry for entry in entries if entry.mapper_name == one.volume]
    if not mine:
        yield (
            f"required = true, and no line of {FSTAB} names {one.mapper_path}: the boot does not stop without it; a"
            " mount unit of your own needs RequiredBy=local-fs.target"
        )
    for entry in mine:
        place = f"{FSTAB}:{entry.number}"
        if not fstab.is_mounted_at_boot(entry):
            yield f"{place}: is not mounted at boot ({','.join(entry.options)}): required = true has no effect on it"
        elif fstab.NOFAIL in entry.options:
            yield f"{place}: nofail has no effect, because {one.source} says required = true: remove one of the two"
        elif entry.is_remote:
            yield f"{place}: _netdev lets services start before it is mounted: remove it, so that required = true holds"
    if one.needs_network and not one.initrd:
        yield (
            "required = true, and its key comes over the network: local-fs.target waits for it, and many networks come"
            " up after that; remove initrd = false"
        )
