"""Growing an open volume, and its file system, after its device was enlarged. Nothing is ever made smaller."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from cryptpilot_boot import log
from cryptpilot_boot.errors import CryptpilotError, DeviceError, ProgramError
from cryptpilot_boot.keys.failures import wrong_secret
from cryptpilot_boot.system import block, cryptsetup, growfs, lock, luks_data
from cryptpilot_boot.volume import growth, opened, state
from cryptpilot_boot.volume.opening import initialized_header
from cryptpilot_boot.volume.secret import with_secret

if TYPE_CHECKING:
    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.keys.secret import Secret
    from cryptpilot_boot.passphrase import Passphrase
    from cryptpilot_boot.system.luks_header import Header

_SECTOR = 512


@dataclasses.dataclass(frozen=True)
class Resized:
    """The result of a resize.

    before, after: size of the volume in bytes. remark: what happened to the file system, or what a person has to do
    about it. free: bytes of the disk behind the partition that is the device.
    """

    before: int
    after: int
    remark: str
    free: int


def resize(volume: Volume, secret: Secret) -> Resized:
    """Grow an open persistent volume to the size of its device, and then its file system.

    secret: asked only if the volume has to grow. A step that has begun is completed. This can be run again after a
    power cut, or if the file system could not grow.
    """
    if volume.temporary:
        raise CryptpilotError(
            "is temporary: it takes the size of its device at each open, and its key is known only to the kernel",
            f"cryptpilot close {volume.volume}; cryptpilot open {volume.volume}; what it holds is lost",
        )
    with lock.held(volume.volume):
        if not state.is_open(volume):
            raise CryptpilotError(
                "is not open, and only an open volume is resized",
                f"cryptpilot open {volume.volume}; then again: cryptpilot resize {volume.volume}",
            )
        device = block.look_up(volume.dev)
        with initialized_header(volume, device)[0] as header:
            found = growth.find(volume, header)
            before = _size(volume)
            if found.unused < 0 or (found.unused and found.fixed):
                raise DeviceError(growth.describe(volume, found), _NO_WAY[found.fixed])
            if found.unused:
                wanted = before + found.unused
                with_secret(secret, lambda passphrase: _grow(volume, header, wanted, passphrase))
        return Resized(before, _size(volume), _grow_fs(volume), 0 if found.fixed else found.unpartitioned)


# Keys: whether the volume has integrity.
_NO_WAY = {
    True: "attach a larger disk, make a volume on it (cryptpilot init), and copy the data",
    False: "nothing was changed; a volume is never made smaller",
}


def _size(volume: Volume) -> int:
    return block.look_up(volume.mapper_path).size


def _grow(volume: Volume, header: Header, wanted: int, passphrase: Passphrase) -> None:
    """Give an open volume a size in bytes. Raises WrongSecret.

    cryptsetup loads the volume key of the header into the kernel again. If the host had put an old header back, that
    may be another key, and all later writes would be lost. So the header has to be that of the opening.
    """
    if not opened.is_by(volume.volume, luks_data.volume_key(header)):
        if opened.is_known(volume.volume):
            raise DeviceError(
                f"the header of {volume.dev} is not the one the volume was opened by",
                "if it was reencrypted since, close the volume and open it; if not, someone changed it: save the data"
                " while the volume is open",
            )
        raise CryptpilotError(
            "was opened by another program, or an older version of cryptpilot: nothing says with which key",
            f"close it and open it with: cryptpilot open {volume.volume}; it takes all of its device then",
        )
    with log.timed("resize", volume.volume, device=volume.dev, bytes=wanted):
        try:
            cryptsetup.resize(volume.volume, passphrase, header, wanted // _SECTOR)
        except ProgramError as error:
            if error.status == cryptsetup.WRONG_PASSPHRASE:
                raise wrong_secret(volume, "no key slot takes it") from None
            raise CryptpilotError(
                f"{volume.mapper_path} cannot be resized: {error.what}",
                error.hint or "it has the size it had; see what the kernel says of it (dmesg)",
            ) from None


def _grow_fs(volume: Volume) -> str:
    """Grow the file system of an open volume to the size of that; return a remark. Raises CryptpilotError."""
    found = block.signature(volume.mapper_path)
    if found is None:
        return ""
    how = growfs.KINDS.get(found.kind, growfs.GrowMethod(by_hand="its own tools may make it larger"))
    if how.by_hand:
        return f"its {found} keeps its size: {how.by_hand.format(volume.mapper_path)}"
    again = f"cryptpilot resize {volume.volume}"
    if growfs.fills(found.kind, volume.mapper_path, _size(volume)):
        return f"its {found} fills it"
    mounted = growfs.mount_point(block.look_up(volume.mapper_path).number)
    with log.timed("grow-fs", volume.volume, kind=found.kind, device=volume.mapper_path):
        try:
            done = growfs.grow(found.kind, volume.mapper_path, mounted)
        except ProgramError as error:
            raise CryptpilotError(
                f"its {found} could not be made to fill {volume.mapper_path}: {error.what}",
                error.hint or f"the volume itself has its new size; again: {again}",
            ) from None
    if not done:
        raise CryptpilotError(
            f"its {found} grows only while it is mounted",
            f"the volume itself has its new size; mount {volume.mapper_path}, then again: {again}",
        )
    return f"its {found} fills it"
