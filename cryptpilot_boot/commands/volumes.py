"""`cryptpilot init`, `open` and `close`: what an administrator does to volumes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from cryptpilot_boot import keys, log, volume
from cryptpilot_boot.commands.select import select
from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.system import process
from cryptpilot_boot.system.wait import Deadline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptpilot_boot.config import Config, Volume
    from cryptpilot_boot.keys import Passphrase

Say = Callable[[str], None]
Confirm = Callable[[str], bool]


def init(config: Config, names: Sequence[str], say: Say, confirm: Confirm) -> None:
    """Initialize persistent volumes. confirm: asked before each; what it says no to is not touched."""
    for one in select(config, names):
        force = volume.Force()
        target = volume.require_formattable(one, force)
        if not confirm(f"All data on {target} will be lost. Initialize it as volume {one.volume}?"):
            raise CryptpilotError(f'volume "{one.volume}" was not initialized: not confirmed', "nothing was changed")
        volume.initialize(one, target, force, _passphrase_of(one, config))
        say(f"{one.volume}: {one.dev} is initialized; open it with: cryptpilot open {one.volume}")


def open_volumes(config: Config, names: Sequence[str], say: Say) -> None:
    """Open volumes; one that is open already is no error."""
    for one in select(config, names):
        opened = volume.open_volume(one, _passphrase_of(one, config))
        say(f"{one.volume}: {one.mapper_path} {'is open' if opened else 'was open already'}")


def close(config: Config, names: Sequence[str], say: Say) -> None:
    """Close volumes; one that is closed already is no error."""
    for one in select(config, names):
        closed = volume.close(one)
        say(f"{one.volume}: {one.mapper_path} {'is closed' if closed else 'was closed already'}")


def _passphrase_of(one: Volume, config: Config) -> Callable[[], Passphrase]:
    def ask() -> Passphrase:
        with log.timed("fetch-key", one.volume, **keys.describe(one.encrypt)):
            process.lock_memory()
            prepared = keys.prepare(one.encrypt)
            return keys.ask_until(prepared, Deadline(config.boot.timeout), one.volume)

    return ask
