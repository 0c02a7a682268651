"""`cryptpilot bind`: no other disk is opened in the place of a volume's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot import keys
from cryptpilot_boot.commands.each import each
from cryptpilot_boot.commands.key import passphrase_of, previous_of
from cryptpilot_boot.commands.select import select
from cryptpilot_boot.volume.bind import bind as bind_volume

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptpilot_boot.commands.each import Report
    from cryptpilot_boot.config import Config, Volume


def bind(config: Config, names: Sequence[str], report: Report) -> bool:
    """Bind volumes to what their devices hold; True when all are bound."""

    def bind_one(one: Volume) -> str:
        current, previous = passphrase_of(one, config, answers), previous_of(one, config, answers)
        now = bind_volume(one, config.identity_file(one.volume), current, previous)
        before = one.identity
        if before and before.volume_keys == now.volume_keys:
            return f"was bound to the volume on {one.dev} already (UUID {now.uuid or 'none'})"
        instead = f", in place of the one with UUID {before.uuid or 'none'}" if before else ""
        return f"is bound to the volume on {one.dev} (UUID {now.uuid or 'none'}){instead}"

    with keys.Answers() as answers:
        return each(select(config, names), bind_one, report)
