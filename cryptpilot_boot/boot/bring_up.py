"""What is done for one volume at boot, from its name to its open device."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from typing import TYPE_CHECKING

from cryptpilot_boot import keys, log, tasks, volume
from cryptpilot_boot.boot.prompt import Typed
from cryptpilot_boot.errors import DeviceError, KeyFetchError
from cryptpilot_boot.keys.asking import Terms, previous_of, secret_of
from cryptpilot_boot.keys.sources import alone, inside
from cryptpilot_boot.system import block, network, process
from cryptpilot_boot.system.wait import Deadline, device_changes, network_changes, wait_for

if TYPE_CHECKING:
    from cryptpilot_boot.boot.prompt import Person
    from cryptpilot_boot.config import Volume
    from cryptpilot_boot.errors import CryptpilotError
    from cryptpilot_boot.keys.asking import Single
    from cryptpilot_boot.keys.sources import Sources


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

    def key_deadline() -> Deadline:
        # while the boot waits for a user, the provider is asked as long
        return Deadline(math.inf) if person and person.endless else deadline

    terms = Terms(answers, key_deadline, person.first_of if person else alone)
    with person or contextlib.nullcontext(), secret_of(one, terms) as secret:
        try:
            if volume.is_open(one):
                return Opened(volume.Opening.WAS_OPEN)
            _prepare(one, secret, person)
        finally:
            tasks.prepared()
        _wait_for_device(one, deadline)
        try:
            how = volume.open_volume(one, secret, ask_previous=previous_of(one, terms))
            return Opened(how, secret.opened_by or 0)
        except (*volume.KEYLESS, Typed) as error:
            if person is None:
                raise
            return Opened(_open_by_hand(one, deadline, person, None if isinstance(error, Typed) else error))


def _prepare(one: Volume, secret: Single | Sources, person: Person | None) -> None:
    with log.timed("prepare", one.volume):
        process.lock_memory()
        try:
            secret.prepare()
        except KeyFetchError:
            # otherwise it is raised again by the question, and the user is asked then
            if person is None:
                raise


def _open_by_hand(one: Volume, deadline: Deadline, person: Person, failed: CryptpilotError | None) -> volume.Opening:
    """Open a volume by the key that a person types, or has typed. failed: see `prompt.Person.key`."""

    def ask_key() -> keys.Passphrase:
        return inside(tasks.asking(), lambda: person.key(failed, deadline), keys.Passphrase.wipe)

    opened = volume.open_by_key(one, ask_key, check_fs=False)
    return opened if opened is volume.Opening.WAS_OPEN else volume.Opening.TYPED


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
