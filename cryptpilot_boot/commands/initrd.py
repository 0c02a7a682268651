"""`cryptpilot initrd plan` and `record`: what the dracut module asks at image build time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot import keys, names
from cryptpilot_boot.boot.plan import auto_open, image_needs, initrd_volumes
from cryptpilot_boot.errors import ConfigError, CryptpilotError
from cryptpilot_boot.images import record as records
from cryptpilot_boot.system import certificates, init
from cryptpilot_boot.units import passing_over

if TYPE_CHECKING:
    from cryptpilot_boot.config import Config, Volume


def plan(config: Config) -> list[str]:
    """Return what the initrd must carry, one "kind value" a line, for a shell to read.

    It prints the devices of all volumes, including those of the booted system, so that dracut itself does not add them
    to the image. Those to claim are opened at boot by us alone, whatever else asks for it; the condition is for systemd
    to know them by. Raises KeyFetchError when it must carry public CAs, and this system has none.
    """
    needs = image_needs(config)
    if not init.in_initrd():  # there, what is missing is for `cryptpilot initrd check` to say
        for one in initrd_volumes(config):
            _require_usable(one)
    lines = [f"config {path}" for path in needs.configuration if path.exists()]
    lines += [f"program {name}" for name in needs.programs]
    lines += [f"file {path}" for path in needs.files]
    lines += [f"module {name}" for name in needs.modules]
    lines += [f"driver {name}" for name in needs.drivers]
    lines += [f"unit {name}" for name in needs.units]
    lines += [f"device {volume.dev}" for volume in config.volumes]
    lines += [f"volume {volume.volume}" for volume in initrd_volumes(config)]
    if opened := auto_open(config):
        lines += [f"claim {volume.dev}" for volume in opened]
        lines.append(f"condition {passing_over.condition(volume.dev for volume in opened)}")
    lines += [f"shell {'yes' if needs.shell else 'no'}"]
    lines += [f"authorities {certificates.store()}"] if needs.authorities else []
    lines += ["network yes"] if needs.network else []
    lines += ["ask yes"] if needs.ask else []
    for line in lines:
        if complaint := names.line(line.partition(" ")[2]):
            raise ConfigError(f"{line!a} {complaint}", "rename the file, or the directory that it is in")
    return lines


def _require_usable(one: Volume) -> None:
    try:
        for source in one.sources:
            keys.require_usable(source)
    except CryptpilotError as error:
        raise CryptpilotError(f"{one.volume}: {error.what}", error.hint) from None


def record(config: Config) -> list[str]:
    """Return what the image is made from, as it is written down in it."""
    return records.make(config).as_json.splitlines()
