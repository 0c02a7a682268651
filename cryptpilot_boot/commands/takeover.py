"""`cryptpilot open --overwrite`: temporary volumes take devices that hold something else, once and by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from cryptpilot_boot.commands.select import select
from cryptpilot_boot.errors import CryptpilotError, Interrupted
from cryptpilot_boot.volume import takeover

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptpilot_boot.commands.each import Report
    from cryptpilot_boot.config import Config


def clear(
    config: Config, names: Sequence[str], kinds: frozenset[str], report: Report, confirm: Callable[[str], bool]
) -> list[str]:
    """Make the devices of temporary volumes blank; return the names of those that can be opened now.

    kinds: what may be destroyed. confirm: asked of each; what it says no to is not touched. report: called with what
    went wrong.
    """
    ready = []
    for one in select(config, names):
        others = [other for other in config.volumes if other.volume != one.volume]
        try:
            target = takeover.require_takeable(one, kinds, others)
            if target and not confirm(f"{target}: all that will be lost. Make temporary volume {one.volume} there?"):
                report(one, CryptpilotError("not opened: not confirmed", "nothing was changed"))
                continue
            if target:
                takeover.take(one, target, kinds, others)
            ready.append(one.volume)
        except Interrupted:
            raise
        except CryptpilotError as error:
            report(one, error)
    return ready
