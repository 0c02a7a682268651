"""What is said of a device that cannot be opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from cryptpilot_boot.config import Otp, Volume
from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.passphrase import Passphrase
from cryptpilot_boot.system import cryptsetup, luks_header
from cryptpilot_boot.volume.failure import telling, telling_a_wrong_secret


@pytest.mark.needs("cryptsetup")
def test_a_header_that_cryptsetup_rejects_is_called_by_the_devices_name(tmp_path: Path) -> None:
    """Not by that of the file in memory that cryptsetup was given."""
    path = "/dev/disk/by-id/virtio-data1"
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    one = Volume("data1", path, Otp(), Path("data1.toml"))
    said = []
    for quoting in (telling_a_wrong_secret(one), telling(one, "cannot be opened")):
        passphrase = Passphrase(b"x", strong=True)
        with luks_header.Header() as header, pytest.raises(CryptpilotError) as caught, quoting:
            cryptsetup.verify(str(disk), passphrase, header)
        said.append(caught.value.what)
    for what in said:
        assert f"{path} cannot be opened: cryptsetup: Device {path} is not a valid LUKS device" in what
        assert "/proc/" not in what
