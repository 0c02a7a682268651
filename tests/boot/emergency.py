"""A person at the console of an initrd whose boot has failed and that gives a shell."""

from __future__ import annotations

from tests.lab import qemu


def enter_shell(guest: qemu.Guest) -> None:
    """Wait for systemd's emergency shell, and go on to its prompt."""
    guest.result(guest.wait(400, until="Press Enter for maintenance")).check(qemu.Ending.SEEN)
    for _ in range(20):  # what is typed before sulogin listens is lost
        guest.type("")
        ending = guest.wait(10, until="# $")
        if ending is not qemu.Ending.TIMED_OUT:
            break
    guest.result(ending).check(qemu.Ending.SEEN)
