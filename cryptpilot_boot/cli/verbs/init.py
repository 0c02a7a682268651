"""`cryptpilot init`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.cli import options, questions, reminders, terminal
from cryptpilot_boot.cli.verb import Example, Verb

if TYPE_CHECKING:
    import argparse

    from cryptpilot_boot.config import Config

_DESCRIPTION = """\
Formats the device of each volume as LUKS2, and makes the file system that makefs names. Destroys everything on the
device: shows what it found there, and asks first. Refuses a device that is in use, and one that holds anything unless
--overwrite names that. After an interruption or a power cut, run it again.
"""
_EXAMPLES = (
    Example("cryptpilot init data0 data1", "Format the devices of two new volumes."),
    Example(
        "cryptpilot init data1 --overwrite ext4",
        "Let data1 have a device that holds an ext4 file system, which is lost.",
    ),
)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    options.volumes(parser)
    options.yes(parser)
    parser.add_argument(
        "--force-reinit", action="store_true", help="initialize a volume again: destroys all data in it"
    )
    options.overwrite(parser, "overwrite this on the device: ext4, gpt, crypto_LUKS, ... as the error names it")


def _run(config: Config, arguments: argparse.Namespace) -> bool:
    from cryptpilot_boot.commands import volumes
    from cryptpilot_boot.config import load
    from cryptpilot_boot.volume import Force

    force = Force(arguments.force_reinit, frozenset(arguments.overwrite))
    confirm = questions.confirmation(arguments)
    with terminal.progress():
        good = volumes.init(config, arguments.volumes, terminal.report, confirm, force, terminal.warn)
    reminders.of_stale_images(load(arguments.config_dir))  # what the volumes are bound to is in images too
    return good


VERB = Verb(_run, _add_arguments, _DESCRIPTION, examples=_EXAMPLES)
