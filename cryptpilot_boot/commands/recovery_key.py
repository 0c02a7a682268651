"""`cryptpilot recovery-key`, and `open --recovery-key`: a way in without the key provider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from cryptpilot_boot import volume
from cryptpilot_boot.commands.each import each
from cryptpilot_boot.commands.key import terms_of
from cryptpilot_boot.commands.select import select
from cryptpilot_boot.errors import CryptpilotError, Interrupted
from cryptpilot_boot.keys import recovery
from cryptpilot_boot.keys.secret import Sources
from cryptpilot_boot.system import process, qrcode
from cryptpilot_boot.volume.slots import UNKNOWN

if TYPE_CHECKING:
    from cryptpilot_boot.commands.each import Report
    from cryptpilot_boot.config import Config, Volume
    from cryptpilot_boot.passphrase import Passphrase

Show = Callable[["Passphrase"], None]
Ask = Callable[[str], "Passphrase"]


def enroll(config: Config, name: str, report: Report, show: Show, *, replace: bool) -> bool:
    """Give a volume a recovery key, and show it; True when that went well. replace: older ones are removed."""

    def enroll_one(one: Volume) -> str:
        older = volume.enroll(one, Sources(one, terms), show, replace=replace)
        removed = older.removed
        void = f"; {removed} older one{'s were' if removed > 1 else ' was'} revoked" if removed else ""
        said = f"its recovery key opens it from now on{void}"
        # luksRemoveKey asks for the key itself: it can remove no slot but the one that takes it
        todo = f"if you have that key: cryptsetup luksRemoveKey {one.dev}; if not: {UNKNOWN}"
        return said + older.remark("recovery key", todo)

    with terms_of(config) as terms:
        return each(select(config, [name]), enroll_one, report)


def draw(key: Passphrase, *, colored: bool) -> list[str]:
    """Return the key as the lines of a QR code. Raises ProgramError."""
    return qrcode.draw(key.reveal(), colored=colored)


def open_by_key(config: Config, name: str, report: Report, ask: Ask, *, check_fs: bool) -> bool:
    """Open a volume by its recovery key, for which a person is asked.

    True when it is open, also if another program opened it.
    """
    (one,) = select(config, [name])
    try:
        volume.require_persistent(one)
        if volume.is_open(one):
            report(one, f"{one.mapper_path} was open already")
            return True
        volume.require_openable(one)  # otherwise it would be typed to no effect
    except Interrupted:
        raise
    except CryptpilotError as error:
        report(one, error)
        return False
    process.lock_memory()

    def open_one(_: Volume) -> str:
        opened = volume.open_by_key(one, key, check_fs=check_fs)
        return f"{one.mapper_path} {'is open' if opened.how is not volume.Opening.WAS_OPEN else 'was open already'}"

    with ask(name) as key:
        return each([one], open_one, report)


def parse(typed: bytearray) -> Passphrase:
    """Return the recovery key that was typed, and forget what was. Raises CryptpilotError for a slip."""
    try:
        return recovery.parse(typed)
    finally:
        typed[:] = bytes(len(typed))
