"""Recovery keys on the terminal: showing one, and asking for one."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from cryptpilot_boot.cli import questions, terminal
from cryptpilot_boot.commands import recovery_key
from cryptpilot_boot.errors import CryptpilotError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptpilot_boot.passphrase import Passphrase


def require_shown() -> None:
    """Raise CryptpilotError if a recovery key could not be shown. Call this before a key is made."""
    terminal.require_output("the recovery key")


def show(key: Passphrase) -> None:
    """Print the key alone to standard output, and draw it if that is a terminal."""
    try:
        terminal.say(bytes(key.reveal()).decode())
    except OSError:
        terminal.say_no_more()
        raise
    with contextlib.suppress(OSError):  # the key was printed: a failure from here on does not make it invalid
        if terminal.is_shown():
            try:
                for line in _require_shown(recovery_key.draw(key, colored=terminal.colored())):
                    terminal.say(line)
            except CryptpilotError as error:
                # the key can still be written down
                terminal.complain(f"no QR code of it: {error.what}")
                terminal.complain(f"  {error.hint}")
        terminal.complain("write it down, or print it, and keep it away from this machine: it is not shown again")


def _require_shown(drawing: Sequence[str]) -> Sequence[str]:
    """Return a drawing. Raise CryptpilotError if its characters would be escaped, and push the key off the screen."""
    if terminal.has_characters("".join(drawing)):
        return drawing
    raise CryptpilotError(
        f"the encoding of the terminal, {sys.stdout.encoding}, has no characters to draw it with",
        "write the key down; to have a code too, set a UTF-8 locale, such as LC_ALL=C.UTF-8",
    )


def ask(name: str) -> Passphrase:
    """Ask for a recovery key, on a terminal until it is one; raises CryptpilotError."""
    while True:
        typed = questions.read_secret_line(f"Recovery key of {name} (it is not shown as you type): ")
        try:
            return recovery_key.parse(typed)
        except CryptpilotError as error:
            if not questions.asks():
                raise
            terminal.explain(error)
