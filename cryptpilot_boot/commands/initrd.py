"""`cryptpilot initrd plan` and `record`: what the dracut module asks at image build time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.boot import record as records
from cryptpilot_boot.boot.plan import image_needs, initrd_volumes
from cryptpilot_boot.system import certificates

if TYPE_CHECKING:
    from cryptpilot_boot.config import Config


def plan(config: Config) -> list[str]:
    """Return what the initrd must carry, one "kind value" a line, for a shell to read.

    Of all volumes, those included that are none of the initrd's, it says the devices: nobody else in the image is to
    open them. Raises KeyFetchError when it must carry public CAs, and this system has none.
    """
    needs = image_needs(config)
    lines = [f"config {path}" for path in needs.configuration if path.exists()]
    lines += [f"program {name}" for name in needs.programs]
    lines += [f"module {name}" for name in needs.modules]
    lines += [f"device {volume.dev}" for volume in config.volumes]
    lines += [f"volume {volume.volume}" for volume in initrd_volumes(config)]
    lines += [f"authorities {certificates.store()}"] if needs.authorities else []
    return lines + (["network yes"] if needs.network else [])


def record(config: Config) -> list[str]:
    """Return what the image is made from, as it is written down in it."""
    return records.make(config).as_json.splitlines()
