"""Recovery keys on the terminal: showing one, and asking for one."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from cryptpilot_boot.cli import terminal
from cryptpilot_boot.commands import recovery_key
from cryptpilot_boot.errors import CryptpilotError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from cryptpilot_boot.config import Config
    from cryptpilot_boot.passphrase import Passphrase


def enroll(config: Config, arguments: argparse.Namespace) -> bool:
    """Run `recovery-key`; True when all went well."""
    require_shown()
    with terminal.progress():
        return recovery_key.enroll(config, arguments.volume, terminal.report_aside, show, replace=arguments.replace)


def require_shown() -> None:
    """Raise CryptpilotError where a recovery key could not be shown, before one is made."""
    terminal.require_output("the recovery key")


def show(key: Passphrase) -> None:
    """Print the key alone to standard output, and draw it if that is a terminal."""
    try:
        terminal.say(bytes(key.reveal()).decode())
    except OSError:
        terminal.say_no_more()
        raise
    with contextlib.suppress(OSError):  # the key is out: what else there is to say does not make it void
        if terminal.is_shown():
            try:
                for line in _require_shown(recovery_key.draw(key, colored=terminal.colored())):
                    terminal.say(line)
            except CryptpilotError as error:
                # it can be written down all the same
                terminal.complain(f"no QR code of it: {error.what}")
                terminal.complain(f"  {error.hint}")
        terminal.complain("write it down, or print it, and keep it away from this machine: it is not shown again")


def _require_shown(drawing: Sequence[str]) -> Sequence[str]:
    """Return a drawing; raise CryptpilotError where its escaped characters would only push the key off the screen."""
    if terminal.has_characters("".join(drawing)):
        return drawing
    raise CryptpilotError(
        f"the encoding of the terminal, {sys.stdout.encoding}, has no characters to draw it with",
        "write the key down; to have a code too, set a UTF-8 locale, such as LC_ALL=C.UTF-8",
    )


def ask(name: str) -> Passphrase:
    """Ask for a recovery key, on a terminal until it is one; raises CryptpilotError."""
    while True:
        typed = terminal.read_secret_line(f"Recovery key of {name} (it is not shown as you type): ")
        try:
            return recovery_key.parse(typed)
        except CryptpilotError as error:
            if not terminal.asks():
                raise
            terminal.explain(error)
