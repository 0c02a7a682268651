"""`cryptpilot boot report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot.cli import options, terminal
from cryptpilot_boot.cli.verb import Example, Verb

if TYPE_CHECKING:
    import argparse

    from cryptpilot_boot.config import Config

_DESCRIPTION = """\
Shows what the boot agent did in this boot, in the initrd and after it: when each step began and how long it took, with
waits and failures marked. Then it shows for each volume which stage opened it and when, or why it is not open and what
to do. Needs no configuration, and works in the emergency shell of the initrd. Only root can read the event log."""
_EXAMPLES = (
    Example("cryptpilot boot report", "Show the steps of this boot, and why a volume is not open."),
    Example("cryptpilot boot report --svg boot.svg", "Draw them."),
)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    form = parser.add_mutually_exclusive_group()
    options.json(form)
    form.add_argument("--svg", metavar="FILE", help="write a picture to FILE, which is replaced; - for standard output")
    parser.add_argument(
        "--log",
        type=Path,
        metavar="FILE",
        help="read this event log, say of another machine (default: /run/cryptpilot/events.jsonl, this boot's)",
    )


def _run(_: Config, arguments: argparse.Namespace) -> bool:
    from cryptpilot_boot.commands import boot_report

    whole = boot_report.make(arguments.log)
    if arguments.json:
        lines = boot_report.as_json(whole)
    elif arguments.svg:
        lines = boot_report.as_picture(whole, None if arguments.svg == "-" else Path(arguments.svg))
    else:
        lines = boot_report.as_table(whole, terminal.width())
    terminal.say_all(lines)
    return True


VERB = Verb(_run, _add_arguments, _DESCRIPTION, examples=_EXAMPLES)
