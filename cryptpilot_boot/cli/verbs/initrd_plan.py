"""`cryptpilot initrd plan`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.cli import terminal
from cryptpilot_boot.cli.verb import Verb

if TYPE_CHECKING:
    import argparse

    from cryptpilot_boot.config import Config


def _run(config: Config, _: argparse.Namespace) -> bool:
    from cryptpilot_boot.commands import initrd

    terminal.say_all(initrd.plan(config))
    return True


VERB = Verb(_run)
