"""`cryptpilot config check`: finds out by day what would fail at night."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Callable

from cryptpilot_boot import keys, volume
from cryptpilot_boot.boot.plan import initrd_volumes, pivot_volumes
from cryptpilot_boot.commands import competing, select
from cryptpilot_boot.commands.key import terms_of
from cryptpilot_boot.errors import CryptpilotError, Interrupted, NoValue, describe_bug
from cryptpilot_boot.keys.asking import question
from cryptpilot_boot.keys.names import named
from cryptpilot_boot.keys.secret import Sources
from cryptpilot_boot.providers import table
from cryptpilot_boot.system import init
from cryptpilot_boot.units import fstab, required
from cryptpilot_boot.volume import State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptpilot_boot.config import Config, Encrypt, Volume
    from cryptpilot_boot.keys.asking import Terms

# States of a volume that are no error, but worth a look.
_WARNINGS = {
    State.DEVICE_NOT_FOUND: "its disk is not attached",
    State.REQUIRES_INIT: "is not initialized",
    State.INITIALIZING: "is half initialized",
}
# States that keep it from being opened, and what to do if the state does not come with that.
_ERRORS = {State.CHECK_FAILED: "see what is on the device: lsblk --fs", State.CONVERTING: ""}
_WEAK = (
    "its secret is weak (text, or shorter than 32 bytes): each open has to derive the key with Argon2id, which takes"
    " seconds and up to 1 GiB of memory; better is the output of: head -c 256 /dev/urandom | base64 -w 0"
)


def check(config: Config, *, keep_checking: bool, skip_passphrase: bool, say: Callable[[str], None]) -> bool:
    """Check every volume: its device, its key provider, and whether the one opens the other.

    keep_checking: go on after a volume with an error. skip_passphrase: ask no key provider. True when there was no
    error; a warning is printed and is not an error.
    """
    with terms_of(config) as terms:
        return _check(config, terms, keep_checking=keep_checking, skip_passphrase=skip_passphrase, say=say)


def _check(
    config: Config, terms: Terms, *, keep_checking: bool, skip_passphrase: bool, say: Callable[[str], None]
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
            for warning in _warnings(one, config, terms, skip_passphrase=skip_passphrase):
                say(f"{one.volume}: warning: {warning}")
                said = True
        except (Interrupted, OSError):  # OSError: the reader has gone
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
        endings = [ending for source in one.sources if (ending := keys.ending(source))]
        for ending in endings:  # whatever else is wrong with it
            say(f"{one.volume}: {ending}")
        if not endings and not said and not error:
            say(f"{one.volume}: ok")
    return good


def _warnings(one: Volume, config: Config, terms: Terms, *, skip_passphrase: bool) -> Iterator[str]:
    """Yield what is worth a look. Raises CryptpilotError for what would keep the volume from being opened."""
    if one.volume in pivot_volumes(init.kernel_command_line()) and one not in initrd_volumes(config):
        yield (
            "the root file system is on this volume, but no initrd opens it: set auto_open = true, and remove"
            " initrd = false"
        )
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
    if status.initialized and not (one.temporary or one.identity):
        yield from _unbound(one, config)
    if not one.fallbacks:
        yield from _source_warnings(one, one.encrypt, status, terms, skip_passphrase=skip_passphrase)
        return
    yield from _unreached(one, config)
    failures = []
    for number, source in enumerate(one.sources):
        name = named(one, number)
        try:
            for warning in _source_warnings(one, source, status, terms, skip_passphrase=skip_passphrase):
                yield f"{name}: {warning}"
        except Interrupted:
            raise
        except volume.WrongSecret as error:
            todo = f"if it was never enrolled: cryptpilot enroll {one.volume} {one.source_name(number)}"
            failures.append(CryptpilotError(f"{name}: {error.what}", todo))
        except CryptpilotError as error:
            failures.append(CryptpilotError(f"{name}: {error.what}", error.hint))
    if failures:
        raise CryptpilotError(
            "; ".join(error.what for error in failures), "; ".join(error.hint for error in failures if error.hint)
        )


def _unreached(one: Volume, config: Config) -> Iterator[str]:
    """Yield that a fallback has its turn too late to be of use."""
    turn = 0
    for number, fallback in enumerate(one.fallbacks, 1):
        turn += fallback.after
        if turn >= config.boot.timeout:
            yield (
                f"{named(one, number)} is asked after {turn} s of silence, and [boot] timeout ({config.boot.timeout} s)"
                " is over by then"
            )


def _source_warnings(
    one: Volume,
    source: Encrypt,
    status: volume.Status,
    terms: Terms,
    *,
    skip_passphrase: bool,
) -> Iterator[str]:
    """Do for one source of a volume's key what `_warnings` does."""
    keys.require_usable(source)
    if one.temporary or skip_passphrase:
        return
    unusable: NoValue | None = None
    try:
        with question(one, source, terms)() as passphrase:
            if not passphrase.strong:
                yield _WEAK
    except NoValue as error:
        unusable = error
    if status.state in (State.READY_TO_OPEN, State.OPENED):
        # the current value has been fetched: it is not asked for again
        alone = dataclasses.replace(one, encrypt=source, fallbacks=())
        if volume.verify(alone, Sources(alone, terms)).how is volume.Opening.PREVIOUS:
            todo = f"; {unusable.what}: {unusable.hint}" if unusable else f"; rotate it: cryptpilot rotate {one.volume}"
            yield f"it opens with the previous value of its secret only{todo}"
    elif unusable:
        raise unusable


def _unbound(one: Volume, config: Config) -> Iterator[str]:
    """Yield why a volume that is not bound to its disk should be.

    A volume that shares its secret with no other gets no warning: no other disk of this machine opens in its place.
    """
    others = [
        other.volume
        for other in config.volumes
        if other is not one and any(keys.share(mine, theirs) for mine in one.sources for theirs in other.sources)
    ]
    if others:
        yield (
            f"its secret also opens {', '.join(others)}, whose disk would open in its place; bind it to its own"
            f" disk: cryptpilot bind {one.volume}"
        )
    if any(table.is_on_device(source) for source in one.sources):
        yield (
            "not bound to its disk, which holds its sealed key: another disk, with a key known to the maker of a"
            f" virtual TPM, would open in its place: cryptpilot bind {one.volume}"
        )
    if config.boot.ask and one.auto_open:
        yield f"not bound to its disk, so its key is not asked for at boot (ask = true): cryptpilot bind {one.volume}"
