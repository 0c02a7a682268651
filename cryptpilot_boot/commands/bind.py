"""`cryptpilot bind`: no other disk is opened in the place of a volume's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.commands.each import each
from cryptpilot_boot.commands.key import terms_of
from cryptpilot_boot.commands.select import select
from cryptpilot_boot.keys.secret import Sources
from cryptpilot_boot.volume.bind import bind as bind_volume

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptpilot_boot.commands.each import Report
    from cryptpilot_boot.config import Config, Volume


def bind(config: Config, names: Sequence[str], report: Report) -> bool:
    """Bind volumes to what their devices hold; True when all are bound."""

    def bind_one(one: Volume) -> str:
        now = bind_volume(one, config.identity_file(one.volume), Sources(one, terms))
        before = one.identity
        if before and before.volume_keys == now.volume_keys:
            return f"was bound to the volume on {one.dev} already (UUID {now.uuid or 'none'})"
        instead = f", in place of the one with UUID {before.uuid or 'none'}" if before else ""
        return f"is bound to the volume on {one.dev} (UUID {now.uuid or 'none'}){instead}"

    with terms_of(config) as terms:
        return each(select(config, names), bind_one, report)
