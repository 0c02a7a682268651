"""What is done for one volume at boot, from its name to its open device."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from typing import TYPE_CHECKING, Callable

from cryptpilot_boot import keys, log, tasks, volume
from cryptpilot_boot.boot.prompt import Typed
from cryptpilot_boot.errors import DeviceError, KeyFetchError
from cryptpilot_boot.keys.sources import Sources, alone, inside, named
from cryptpilot_boot.system import block, network, process
from cryptpilot_boot.system.wait import Deadline, device_changes, network_changes, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptpilot_boot.boot.prompt import Person
    from cryptpilot_boot.config import Encrypt, Volume
    from cryptpilot_boot.errors import CryptpilotError
    from cryptpilot_boot.keys.race import Asked


@dataclasses.dataclass(frozen=True)
class Opened:
    """How a volume came to be open, and which of its sources gave the key: 0 for the first."""

    how: volume.Opening
    source: int = 0


def bring_up(
    one: Volume,
    deadline: Deadline,
    answers: keys.Answers,
    person: Person | None = None,
) -> Opened:
    """Prepare, wait for the device, ask for the key, open; the work of a task, see `tasks`.

    deadline: limits all waiting. person: the prompt for the key, if a user may be asked beside the providers.
    """
    with contextlib.ExitStack() as stack:
        if person:
            stack.enter_context(person)
        return _bring_up(one, deadline, answers, person, stack)


def _bring_up(
    one: Volume,
    deadline: Deadline,
    answers: keys.Answers,
    person: Person | None,
    stack: contextlib.ExitStack,
) -> Opened:
    try:
        if volume.is_open(one):
            return Opened(volume.Opening.WAS_OPEN)
        with log.timed("prepare", one.volume):
            process.lock_memory()
            if one.fallbacks:
                sources = stack.enter_context(_sources(one, deadline, answers, person))
                sources.prepare()
            else:
                ask = _prepared(one, person)
    finally:
        tasks.prepared()
    _wait_for_device(one, deadline)
    beside = person.first_of if person else alone

    def fetch(encrypt: Encrypt, prepared: Callable[[], keys.Ask]) -> Asked:
        def ask_provider() -> keys.Passphrase:
            with log.timed(log.FETCH_KEY, one.volume, **keys.describe(encrypt)):
                return answers.ask(encrypt, prepared(), _key_deadline(deadline, person), one.volume)

        def first() -> keys.Passphrase:
            return inside(tasks.asking(), lambda: beside(ask_provider, keys.Passphrase.wipe), keys.Passphrase.wipe)

        return first

    try:
        if one.fallbacks:
            how = volume.open_volume(one, sources)
            return Opened(how, sources.opened_by or 0)
        previous = keys.previous(one.encrypt)
        # prepared only then: hardly any boot comes here, and what takes long was done for the current value
        ask_previous = fetch(previous, lambda: keys.prepare(previous)) if previous else None
        return Opened(volume.open_volume(one, fetch(one.encrypt, lambda: ask), ask_previous=ask_previous))
    except (*volume.KEYLESS, Typed) as error:
        if person is None:
            raise
        return Opened(_open_by_hand(one, deadline, person, None if isinstance(error, Typed) else error))


def _prepared(one: Volume, person: Person | None) -> keys.Ask:
    """Return what asks for the key; where a person may be asked too, credentials that are unusable fail only then."""
    try:
        return keys.prepare(one.encrypt)
    except KeyFetchError as error:
        if person is None:
            raise
        unusable = error

    def fail(_: float) -> keys.Passphrase:
        raise unusable

    return fail


def _key_deadline(deadline: Deadline, person: Person | None) -> Deadline:
    """Return by when the key has to be there: where the boot waits for a person, its provider is asked as long."""
    return Deadline(math.inf) if person and person.endless else deadline


def _open_by_hand(one: Volume, deadline: Deadline, person: Person, failed: CryptpilotError | None) -> volume.Opening:
    """Open a volume by the key that a person types, or has typed. failed: see `prompt.Person.key`."""

    def ask_key() -> keys.Passphrase:
        return inside(tasks.asking(), lambda: person.key(failed, deadline), keys.Passphrase.wipe)

    opened = volume.open_by_key(one, ask_key, check_fs=False)
    return opened if opened is volume.Opening.WAS_OPEN else volume.Opening.TYPED


def _sources(one: Volume, deadline: Deadline, answers: keys.Answers, person: Person | None) -> Sources:
    """Return what asks all sources of a volume, as `bring_up` asks one."""

    def prepare(source: Encrypt) -> Asked:
        ask = keys.prepare(source)
        return lambda: answers.ask(source, ask, _key_deadline(deadline, person), one.volume)

    @contextlib.contextmanager
    def within() -> Iterator[None]:
        with tasks.asking(), log.timed(log.FETCH_KEY, one.volume, provider=names):
            yield

    names = ", ".join(named(one, number) for number in range(len(one.sources)))
    return Sources(one, prepare, within, person.first_of if person else alone)


def _wait_for_device(one: Volume, deadline: Deadline) -> None:
    def tell(left: float) -> None:
        log.emit("wait-device", "wait", volume=one.volume, facts={"waiting_for": f"{one.dev}, {left:.0f} s left"})

    with log.timed("wait-device", one.volume, device=one.dev), device_changes() as changes:
        found = wait_for(lambda: block.is_block_device(one.dev) or None, changes, deadline, on_wait=tell)
        if not found:
            raise DeviceError(
                f"{one.dev} did not appear within {deadline.total:.0f} s",
                'check that the disk is attached and that "dev" names it; a name below /dev/disk/by-id or'
                " by-partuuid stays the same when disks change places",
            )


def watch_network(deadline: Deadline) -> None:
    """Put the moment the network came up into the log: from here on all time is the key service's and ours."""
    with network_changes() as changes:
        if wait_for(lambda: network.has_route() or None, changes, deadline):
            log.emit("network-up")
