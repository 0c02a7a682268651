"""`cryptpilot open`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.cli import options, questions, terminal
from cryptpilot_boot.cli.verb import Example, Verb

if TYPE_CHECKING:
    import argparse

    from cryptpilot_boot.config import Config

_DESCRIPTION = """\
Opens volumes as /dev/mapper/VOLUME, several at the same time. A temporary volume (one-time password) is recreated,
empty. Opening an open volume is not an error. If the device of a temporary volume holds anything else, name that with
--overwrite to let the volume take it, after a question.
"""
_EXAMPLES = (
    Example("cryptpilot open data0 data1", "Open two volumes."),
    Example("cryptpilot open data1 --recovery-key", "Open a volume while its key provider does not answer."),
)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    options.volumes(parser)
    parser.add_argument(
        "--check-fs",
        action="store_true",
        help="check the file system first, as makefs names it, and repair what needs no question",
    )
    options.recovery_key(
        parser,
        "unlock one volume with its recovery key, not the key provider; without a terminal the key is the first line of"
        " standard input",
    )
    options.overwrite(
        parser,
        "let a temporary volume take, once, a device that holds this: crypto_LUKS, ext4, ... as the error names it;"
        " what the device holds is lost",
    )
    options.yes(parser, " of --overwrite")


def _check(arguments: argparse.Namespace) -> None:
    if arguments.recovery_key and len(arguments.volumes) > 1:
        arguments.parser.error("--recovery-key is of one volume")
    if arguments.recovery_key and arguments.overwrite:
        arguments.parser.error("--overwrite is for temporary volumes, which have no recovery key")
    if arguments.overwrite:
        arguments.needs_all_files = True  # as init: no file may hide a volume that has the device already


def _run(config: Config, arguments: argparse.Namespace) -> bool:
    with terminal.progress():
        if arguments.recovery_key:
            return _open_by_key(config, arguments)
        from cryptpilot_boot.commands import volumes

        names = _cleared(config, arguments) if arguments.overwrite else arguments.volumes
        good = not names or volumes.open_volumes(config, names, terminal.report, check_fs=arguments.check_fs)
        return good and len(names) == len(arguments.volumes)


def _open_by_key(config: Config, arguments: argparse.Namespace) -> bool:
    from cryptpilot_boot.cli import keys
    from cryptpilot_boot.commands import recovery_key

    return recovery_key.open_by_key(
        config, arguments.volumes[0], terminal.report, keys.ask, check_fs=arguments.check_fs
    )


def _cleared(config: Config, arguments: argparse.Namespace) -> list[str]:
    """Apply --overwrite; return the names of the volumes to open then."""
    from cryptpilot_boot.commands import takeover

    confirm = questions.confirmation(arguments)
    return takeover.clear(config, arguments.volumes, frozenset(arguments.overwrite), terminal.report, confirm)


VERB = Verb(_run, _add_arguments, _DESCRIPTION, check=_check, examples=_EXAMPLES)
