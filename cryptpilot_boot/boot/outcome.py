"""How a volume fared in a stage of the boot."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from cryptpilot_boot import keys, log, volume
from cryptpilot_boot.keys.sources import named

if TYPE_CHECKING:
    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.errors import CryptpilotError
    from cryptpilot_boot.providers.expiry import Notice


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a volume fared.

    error: None when it is open. seconds: from the start of the stage. late: it was left to the next stage, where it
    may yet succeed; the error says what it was waiting for. needed: the boot cannot go on without it. rotation_pending:
    it was the previous value of its secret that opened it. ending: what to say of a client key that ends.
    source: the number of the source of its key that opened it. typed: a key that a person typed on the console did.
    """

    volume: Volume
    stage: str
    seconds: float
    error: CryptpilotError | None = None
    was_open: bool = False
    late: bool = False
    needed: bool = False
    rotation_pending: bool = False
    ending: Notice | None = None
    source: int = 0
    typed: bool = False

    @property
    def result(self) -> str:
        """Say it in a word or two."""
        if self.error is None:
            return "was open already" if self.was_open else "opened"
        return "left to the system stage" if self.late else "failed"

    @property
    def opened_by(self) -> str:
        """Which of several sources gave the key; "" for a volume with one, and where none did."""
        if self.error or self.was_open or self.typed or not self.volume.fallbacks:
            return ""
        return named(self.volume, self.source)

    @property
    def facts(self) -> dict[str, object]:
        """What the event log has of it."""
        facts: dict[str, object] = {"result": self.result, "needed": self.needed, "device": self.volume.dev}
        facts.update(keys.describe(self.volume.sources[self.source]))
        if self.opened_by:
            facts.update(source=self.volume.source_name(self.source))
        if self.rotation_pending:
            facts.update(rotation_pending=True)
        if self.typed:
            facts.update(typed=True)
        if self.ending:
            facts.update(ending=str(self.ending))
        if self.error:
            facts.update(error=self.error.what, hint=self.error.hint)
        return facts


def ending(one: Volume, opened: volume.Opening | None, source: int = 0) -> Notice | None:
    """Return what to say of the end of a volume's client key. source: the number of the one that opened it.

    Only where KMS has just given its secret out with that: it finds no clock right that is more than 15 minutes off, so
    this is no host's date.
    """
    if opened not in (volume.Opening.CURRENT, volume.Opening.PREVIOUS):
        return None
    with log.telling(f"when the client key of {one.volume} ends"):
        return keys.ending(one.sources[source])
    return None
