"""The mapping under which a volume is worked on before it appears under its own name."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from cryptpilot_boot.system import composite, cryptsetup, mappings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.passphrase import Passphrase
    from cryptpilot_boot.system.block import Device
    from cryptpilot_boot.system.luks_header import Header


def working_name(volume: Volume) -> str:
    """Return the name under which a volume is mapped while it is worked on, before it can be used."""
    return f"{volume.volume}-initializing"


def opened(
    volume: Volume,
    device: Device,
    passphrase: Passphrase,
    header: Header,
    *,
    journal: bool = True,
    readonly: bool = False,
    discard: bool = False,
) -> contextlib.AbstractContextManager[str]:
    """Open a volume under its working name, now; a `with` block gets the path of the mapping, and closes it.

    A unit that waits for the volume does not find it there. header: was checked. journal, readonly, discard: as for
    `cryptsetup.luks_open`. Raises ProgramError.
    """
    name = working_name(volume)
    cryptsetup.luks_open(device.node, name, passphrase, header, journal=journal, readonly=readonly, discard=discard)
    return _closing(name)


@contextlib.contextmanager
def _closing(name: str) -> Iterator[str]:
    try:
        yield f"/dev/mapper/{name}"
    finally:
        cryptsetup.close(name)


def close_leftover(volume: Volume) -> None:
    """Close the mappings that a killed run left behind. The caller holds the lock, so that no run is active.

    The volume itself is closed, so nothing uses the device that cryptsetup maps below it for integrity.
    """
    names = (working_name(volume), *(cryptsetup.below(name) for name in (working_name(volume), volume.volume)))
    for mapping in filter(None, map(mappings.find, (*names, *cryptsetup.temporary(mappings.names())))):
        if mappings.encrypts(mapping, volume.dev):
            cryptsetup.close(mapping.name)
    composite.remove_leftover(volume.dev)
