"""Loop devices: a file, in memory or not, as a block device.

Uses: modprobe. Source: linux/include/uapi/linux/loop.h; loop(4).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot.errors import DeviceError
from cryptpilot_boot.system.run import run

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONTROL = Path("/dev/loop-control")
_GET_FREE = 0x4C82
_SET_FD = 0x4C00
_CLEAR_FD = 0x4C01
_SET_STATUS = 0x4C04
# struct loop_info64: lo_device, lo_inode, lo_rdevice, lo_offset, lo_sizelimit; lo_number, lo_encrypt_type,
# lo_encrypt_key_size, lo_flags; lo_file_name, lo_crypt_name, lo_encrypt_key, lo_init
_INFO = struct.Struct("<5Q4I64s64s32s2Q")
_AUTOCLEAR = 4
_PARTSCAN = 8
_ATTEMPTS = 16  # another program may take the device that was free a moment ago


@contextlib.contextmanager
def attached(file: int, *, partitions: bool = False) -> Iterator[str]:
    """Yield the path of a loop device that has the content of a file. file: a descriptor.

    One that is for reading only makes the device read-only. partitions: have those of the file as devices too. The
    kernel gives the device up once its last user has, when this process is killed as well. Raises DeviceError without a
    free one, ProgramError if the kernel has no such devices.
    """
    if not _CONTROL.exists():
        run(["modprobe", "loop"])
    try:
        path, device = _attach(file, _AUTOCLEAR | (_PARTSCAN if partitions else 0))
    except OSError as error:
        raise DeviceError(f"no loop device can be had: {error.strerror}", "see those in use: losetup --list") from None
    try:
        yield path
    finally:
        os.close(device)


def _attach(file: int, flags: int) -> tuple[str, int]:
    """Return the path of a loop device with a file, and a descriptor that keeps it. Raises OSError."""
    control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        for attempt in range(_ATTEMPTS):
            path = f"/dev/loop{fcntl.ioctl(control, _GET_FREE)}"
            device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _SET_FD, file)
                _set_flags(device, flags)
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY or attempt == _ATTEMPTS - 1:
                    raise
            else:
                return path, device
        raise AssertionError  # the last attempt returns or raises
    finally:
        os.close(control)


def _set_flags(device: int, flags: int) -> None:
    info = _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, flags, b"", b"", b"", 0, 0)
    try:
        fcntl.ioctl(device, _SET_STATUS, info)
    except OSError:
        fcntl.ioctl(device, _CLEAR_FD)
        raise
