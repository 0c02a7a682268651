"""Secrets of volumes, of which a test says what they answer."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot import keys
from cryptpilot_boot.config import Exec, Kms, Volume
from cryptpilot_boot.keys.asking import Terms
from cryptpilot_boot.keys.secret import Sources

if TYPE_CHECKING:
    from cryptpilot_boot.config import Encrypt
    from cryptpilot_boot.keys.race import Asked

KMS = Kms("kst-1", "disk", "{}", "password", "pem")
DATA1 = Volume("data1", "/dev/vdb", KMS, Path("data1.toml"))


@dataclasses.dataclass
class Given(Terms):
    """Terms under which a volume's sources answer by functions. previous: for the value before a rotation."""

    current: Asked
    previous: Asked | None

    def prepared(self, volume: Volume, source: Encrypt) -> Asked:
        """Return the function of the current or the previous value."""
        if source in volume.sources:
            return self.current
        assert self.previous
        return self.previous


def secret(current: Asked, previous: Asked | None = None, volume: Volume = DATA1) -> Sources:
    """Return the secret of a volume with one source, which keeps a previous value if `previous` is given."""
    source = volume.encrypt if previous else Exec("cat")
    return Sources(dataclasses.replace(volume, encrypt=source), Given(keys.Answers(), 0.0, current, previous))
