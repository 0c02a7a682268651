"""`cryptpilot show`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.cli import options, reminders, terminal
from cryptpilot_boot.cli.verb import Verb

if TYPE_CHECKING:
    import argparse

    from cryptpilot_boot.config import Config


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("volumes", nargs="*", metavar="VOLUME", help="only these (default: all)")
    options.json(parser)


def _run(config: Config, arguments: argparse.Namespace) -> bool:
    from cryptpilot_boot.commands import show

    paint = terminal.paint if terminal.colored() else None
    with terminal.progress():
        lines = show.show(config, arguments.volumes, as_json=arguments.json, paint=paint)
    terminal.say_all(lines)
    reminders.of_stale_images(config)
    return True


VERB = Verb(_run, _add_arguments)
