"""`cryptpilot config check`: finds out by day what would fail at night."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from cryptpilot_boot import keys, volume
from cryptpilot_boot.boot import fstab, required
from cryptpilot_boot.boot.plan import initrd_volumes, pivot_volumes
from cryptpilot_boot.commands import competing, select
from cryptpilot_boot.commands.key import passphrase_of, previous_of
from cryptpilot_boot.errors import CryptpilotError, Interrupted, NoValue, describe_bug
from cryptpilot_boot.system import init
from cryptpilot_boot.volume import State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptpilot_boot.config import Config, Volume

# How a volume may stand that is no error, and worth a look.
_WARNINGS = {
    State.DEVICE_NOT_FOUND: "its disk is not attached",
    State.REQUIRES_INIT: "is not initialized",
    State.INITIALIZING: "is half initialized",
}
# How it may stand that keeps it from being opened, and what to do where that is not said with it.
_ERRORS = {State.CHECK_FAILED: "see what is on the device: lsblk --fs", State.CONVERTING: ""}
_WEAK = (
    "its secret is weak (text, or shorter than 32 bytes): each open has to derive the key with Argon2id, which takes"
    " seconds and up to 1 GiB of memory; better is the output of: head -c 256 /dev/urandom | base64 -w 0"
)


def check(config: Config, *, keep_checking: bool, skip_passphrase: bool, say: Callable[[str], None]) -> bool:
    """Check every volume: its device, its key provider, and whether the one opens the other.

    keep_checking: go on after a volume with an error. skip_passphrase: ask no key provider. True when there was no
    error; what is only worth a look is said and is none.
    """
    with keys.Answers() as answers:
        return _check(config, answers, keep_checking=keep_checking, skip_passphrase=skip_passphrase, say=say)


def _check(
    config: Config, answers: keys.Answers, *, keep_checking: bool, skip_passphrase: bool, say: Callable[[str], None]
) -> bool:
    good = True
    for note in select.notes(config):
        say(note)
    for one in config.volumes:
        if not good and not keep_checking:
            say("stopped at the first error; --keep-checking goes on")
            break
        said = False
        error: CryptpilotError | None = None
        try:
            for warning in _warnings(one, config, answers, skip_passphrase=skip_passphrase):
                say(f"{one.volume}: warning: {warning}")
                said = True
        except (Interrupted, OSError):  # OSError: whoever listened has gone
            raise
        except CryptpilotError as failure:
            error = failure
        except Exception as bug:  # one volume's, like any other trouble of it
            error = CryptpilotError(describe_bug(bug), "please report this")
        if error:
            good = False
            say(f"{one.volume}: error: {error.what}")
            if error.hint:
                say(f"{one.volume}:   {error.hint}")
        if ending := keys.ending(one.encrypt):  # whatever else is wrong with it
            say(f"{one.volume}: {ending}")
        elif not said and not error:
            say(f"{one.volume}: ok")
    return good


def _warnings(one: Volume, config: Config, answers: keys.Answers, *, skip_passphrase: bool) -> Iterator[str]:
    """Yield what is worth a look. Raises CryptpilotError for what would keep the volume from being opened."""
    if one.volume in pivot_volumes(init.kernel_command_line()) and one not in initrd_volumes(config):
        yield "this machine's root is on it, and no image has it: it needs auto_open = true, and initrd = false not"
    yield from required.doubts(one, fstab.parse(init.fstab(), init.resolve))
    yield from (found.sentence for found in competing.find([one]))
    status = volume.examine(one)
    if status.state in _ERRORS or status.hint:  # that of an open volume: it would not open again
        raise CryptpilotError(status.detail, status.hint or _ERRORS[status.state])
    if status.state in _WARNINGS:
        yield f"{_WARNINGS[status.state]}: {status.detail}" if status.detail else _WARNINGS[status.state]
    if status.reencrypting:
        yield volume.reencryption(one)
    yield from status.ignored
    if status.state is State.READY_TO_OPEN:
        volume.require_openable(one)
    yield from _exchangeable(one, status, config)
    keys.require_usable(one.encrypt)
    if one.temporary or skip_passphrase:
        return
    unusable: NoValue | None = None
    try:
        with passphrase_of(one, config, answers)() as passphrase:
            if not passphrase.strong:
                yield _WEAK
    except NoValue as error:
        unusable = error
    if status.state in (State.READY_TO_OPEN, State.OPENED):
        # the current value has been fetched: it is not asked for again
        previous = previous_of(one, config, answers)
        if volume.verify(one, passphrase_of(one, config, answers), previous) is volume.Opening.PREVIOUS:
            todo = f"; {unusable.what}: {unusable.hint}" if unusable else f"; rotate it: cryptpilot rotate {one.volume}"
            yield f"it opens with the previous value of its secret only{todo}"
    elif unusable:
        raise unusable


def _exchangeable(one: Volume, status: volume.Status, config: Config) -> Iterator[str]:
    """Yield that another volume's disk would open in the place of this one's.

    A volume that is alone with its secret is not told to be bound: no other disk of this machine opens in its place.
    """
    if one.temporary or one.identity or not status.initialized:
        return
    others = [other.volume for other in config.volumes if other is not one and keys.share(one.encrypt, other.encrypt)]
    if others:
        yield (
            f"its secret also opens {', '.join(others)}, whose disk would open in the place of its own; bind it to its"
            f" own: cryptpilot bind {one.volume}"
        )
