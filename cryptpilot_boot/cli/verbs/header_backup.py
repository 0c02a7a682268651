"""`cryptpilot header backup`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot.cli import options, terminal
from cryptpilot_boot.cli.paths import absolute
from cryptpilot_boot.cli.verb import Example, Verb

if TYPE_CHECKING:
    import argparse

    from cryptpilot_boot.config import Config

_DESCRIPTION = """\
Writes the header of a volume, open or not, to a new file. With this file, a secret or recovery key that opens the
volume now can always open it, even after it was replaced. Make a new backup after a replacement.
"""
_EXAMPLES = (Example("cryptpilot header backup data1 data1.header", "Write a backup; keep it on another machine."),)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    options.volume(parser)
    parser.add_argument("file", type=Path, metavar="FILE")


def _run(config: Config, arguments: argparse.Namespace) -> bool:
    from cryptpilot_boot.commands import header

    with terminal.progress():
        return header.backup(config, arguments.volume, absolute(arguments.file), terminal.report)


VERB = Verb(_run, _add_arguments, _DESCRIPTION, examples=_EXAMPLES)
