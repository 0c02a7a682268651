"""`cryptpilot config check`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.cli import options, reminders, terminal
from cryptpilot_boot.cli.verb import Example, Verb

if TYPE_CHECKING:
    import argparse

    from cryptpilot_boot.config import Config

_DESCRIPTION = """\
Finds what would fail at the next boot: for each volume, whether its files can be used, its device is there and sound,
its key provider answers, and the key opens it. Opens and changes nothing.
"""
_EXAMPLES = (
    Example("cryptpilot config check --keep-checking", "Check all volumes, and report every error."),
    Example("cryptpilot config check --skip-check-passphrase", "Check without a question to a key provider."),
)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--keep-checking", action="store_true", help="go on after the first error")
    parser.add_argument("--skip-check-passphrase", action="store_true", help="ask no key provider")
    options.former_spelling(parser, "--skip-check-key", "skip_check_passphrase")


def _run(config: Config, arguments: argparse.Namespace) -> bool:
    from cryptpilot_boot.commands import check

    with terminal.progress(lines=True):  # a source that may answer later is asked until [boot] timeout
        good = check.check(
            config,
            keep_checking=arguments.keep_checking,
            skip_passphrase=arguments.skip_check_passphrase,
            say=terminal.say,
        )
    reminders.of_stale_images(config)
    reminders.of_late_volumes(config)
    return good


VERB = Verb(_run, _add_arguments, _DESCRIPTION, examples=_EXAMPLES)
