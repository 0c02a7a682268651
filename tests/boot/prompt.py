"""A person at the console of a machine that asks for a key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.lab import qemu

if TYPE_CHECKING:
    from tests.lab.qemu import Guest

PROMPT = "Recovery key or passphrase of volume root"
NO_KEY = "lost and forgotten"
"""What somebody types who does not know the key."""


def answer(guest: Guest, typed: str, after: str = "") -> None:
    """Type a line once the prompt stands there. after: a regular expression of what it says first."""
    guest.result(guest.wait(400, until=f"{after}{PROMPT}:")).check(qemu.Ending.SEEN)
    guest.wait(2)  # systemd asks, and only then has the terminal not show what is typed
    guest.type(typed)
