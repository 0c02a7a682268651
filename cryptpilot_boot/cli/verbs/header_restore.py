"""`cryptpilot header restore`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot.cli import options, questions, terminal
from cryptpilot_boot.cli.paths import absolute
from cryptpilot_boot.cli.verb import Example, Verb

if TYPE_CHECKING:
    import argparse

    from cryptpilot_boot.config import Config

_DESCRIPTION = """\
Restores the header of a closed volume. The backup must be sound, and of the same volume as the header on the device. If
that header is lost or damaged, the volume is first opened with the backup, without writing, to look for a file system.
Refuses a backup that the current secret cannot unlock, and never overwrites the header of another volume. After a power
cut, run it again.
"""
_EXAMPLES = (
    Example("cryptpilot header restore data1 data1.header", "Put the header back; needs the key provider."),
    Example("cryptpilot header restore data1 data1.header --recovery-key", "Do it with the recovery key."),
)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    options.volume(parser)
    parser.add_argument("file", type=Path, metavar="FILE")
    options.yes(parser)
    options.recovery_key(parser, "unlock with the recovery key, not the key provider, if the volume has to be opened")
    parser.add_argument(
        "--force", action="store_true", help="restore even if the file cannot be proven to belong to this device"
    )
    options.overwrite(parser, "overwrite this in the header's place: ext4, gpt, ... as the error names it")


def _run(config: Config, arguments: argparse.Namespace) -> bool:
    from cryptpilot_boot.cli import keys
    from cryptpilot_boot.commands import header

    with terminal.progress():
        return header.restore(
            config,
            arguments.volume,
            absolute(arguments.file),
            terminal.report,
            questions.confirmation(arguments),
            overwrite=frozenset(arguments.overwrite),
            force=arguments.force,
            ask_key=keys.ask if arguments.recovery_key else None,
        )


VERB = Verb(_run, _add_arguments, _DESCRIPTION, examples=_EXAMPLES)
