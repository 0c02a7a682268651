"""`cryptpilot header backup` and `header restore`."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from cryptpilot_boot import volume
from cryptpilot_boot.commands.each import each
from cryptpilot_boot.commands.key import terms_of
from cryptpilot_boot.commands.select import select
from cryptpilot_boot.errors import CryptpilotError, Interrupted
from cryptpilot_boot.keys.secret import Known, Sources
from cryptpilot_boot.system import process

if TYPE_CHECKING:
    from pathlib import Path

    from cryptpilot_boot.commands.each import Report
    from cryptpilot_boot.commands.recovery_key import Ask
    from cryptpilot_boot.commands.volumes import Confirm
    from cryptpilot_boot.config import Config, Volume
    from cryptpilot_boot.keys.secret import Secret


def backup(config: Config, name: str, path: Path, report: Report) -> bool:
    """Write a volume's header to a new file; True when it is there."""

    def backup_one(one: Volume) -> str:
        volume.backup(one, path)
        return (
            f"its header is in {path}: with this file, every secret or recovery key that opens the volume now opens"
            " it for ever; keep it as safe as those, and not on this disk"
        )

    return each(select(config, [name]), backup_one, report)


def restore(
    config: Config,
    name: str,
    path: Path,
    report: Report,
    confirm: Confirm,
    *,
    overwrite: frozenset[str],
    force: bool,
    ask_key: Ask | None,
) -> bool:
    """Put a volume's header back from a file; True when it is there.

    confirm: asked before anything is done. overwrite: what may stand in the header's place. force: do without the proof
    that the file belongs to the device. ask_key: asks a person for the recovery key; without it the key provider is.
    """
    (one,) = select(config, [name])
    try:
        agreed = volume.require_restorable(one, path, overwrite)
    except Interrupted:
        raise
    except CryptpilotError as error:
        report(one, error)
        return False
    replaced = "the header of the same volume" if agreed.proven else volume.describe(agreed.found)
    if not confirm(f"{agreed.device} holds {replaced}. Put the header from {path} in its place?"):
        report(one, CryptpilotError("not restored: not confirmed", "nothing was changed"))
        return False
    with terms_of(config) as terms, contextlib.ExitStack() as kept:
        secret: Secret | None
        if force:
            secret = None
        elif ask_key:
            process.lock_memory()
            secret = Known(kept.enter_context(ask_key(name)))
        else:
            secret = Sources(one, terms)

        def restore_one(_: Volume) -> str:
            volume.restore(one, path, agreed, overwrite, secret, by_recovery_key=ask_key is not None)
            return (
                "its header is put back, with the secrets and recovery keys of when it was saved; open it with:"
                f" cryptpilot open {name}"
            )

        return each([one], restore_one, report)
