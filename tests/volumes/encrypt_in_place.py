"""Does to a file system in a machine what `convert --device` does to a root, but for the system in it, which it mends.

Run as a program there: `python -m tests.volumes.encrypt_in_place begin|go-on DEVICE`. It says where the device stood.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cryptpilot_boot.config import Exec, Volume
from cryptpilot_boot.convert import encrypt, in_place
from cryptpilot_boot.passphrase import Passphrase
from cryptpilot_boot.system import block, encryption, ext4, luks_header, mkfs
from cryptpilot_boot.system.luks_conversion import TAKEN
from cryptpilot_boot.volume import state

KEY = Path("/run/key")


def ask() -> Passphrase:
    """Return the secret."""
    return Passphrase(KEY.read_bytes(), strong=True)


def begin(device: block.Device) -> None:
    """Make room for the header, and put it before the data."""
    with ask() as passphrase:
        header = encryption.prepare(
            device.size, passphrase, subsystem=state.CONVERTING, sector_size=4096, work=Path("/run")
        )
    with header:
        ext4.shrink(device.node, (device.size - TAKEN) // ext4.size(device.node).block)
        encryption.write(device, header)


def look(device: block.Device) -> str:
    """Say where a device stands: plain, begun or complete. What is plain is brought in order."""
    mark = luks_header.mark(device.node)
    if mark:
        return {state.CONVERTING: "begun", state.COMPLETE: "complete"}[mark]
    if block.tags(device.node).get("TYPE") == "ext4":
        if mkfs.check("ext4", device.node):
            assert ext4.is_of_a_power_cut(device.node)
            ext4.mend(device.node)
        return "plain"
    header = in_place.saved(device)
    assert header, "it is lost"
    header.close()
    return "begun"


def main(verb: str, path: str) -> None:
    """Do it."""
    device = block.look_up(path)
    volume = Volume("volume", path, Exec("cat"), Path("/volume.toml"))
    found = look(device)
    if verb == "begin":
        begin(device)
    if verb == "begin" or found == "begun":
        encrypt.finish(volume, ask)
    print(found)


if __name__ == "__main__":
    main(*sys.argv[1:])
