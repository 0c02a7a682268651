"""Claiming a block device: for a moment a program that another thread starts may hold what was closed here."""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING

import pytest

from cryptpilot_boot.errors import DeviceError
from cryptpilot_boot.system import block

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OPEN = os.open


def held_for(seconds: float) -> Callable[..., int]:
    """Return an open() for which each device is claimed by another for so many seconds."""
    free = time.monotonic() + seconds

    def claim(path: str, flags: int, *rest: int) -> int:
        if flags & os.O_EXCL and time.monotonic() < free:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return OPEN(path, flags & ~os.O_EXCL, *rest)

    return claim


def test_a_device_that_a_starting_program_holds_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path / "device"
    device.write_bytes(bytes(512))
    monkeypatch.setattr(os, "open", held_for(0.2))
    block.require_unused(str(device))
    monkeypatch.setattr(os, "open", held_for(0.2))
    with block.writing(str(device)) as target:
        block.write(target, b"header", 0)
    assert device.read_bytes().startswith(b"header\0")


def test_a_device_that_is_in_use_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path / "device"
    device.write_bytes(bytes(512))
    monkeypatch.setattr(os, "open", held_for(60))
    with pytest.raises(DeviceError, match="is in use"):
        block.require_unused(str(device))
    with pytest.raises(DeviceError, match="cannot be written: Device or resource busy"), block.writing(str(device)):
        pass
    assert device.read_bytes() == bytes(512)
