"""`cryptpilot recovery-key`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.cli import options, terminal
from cryptpilot_boot.cli.verb import Example, Verb

if TYPE_CHECKING:
    import argparse

    from cryptpilot_boot.config import Config

_DESCRIPTION = """\
Enrolls a new random recovery key beside the volume's secret. With it, "cryptpilot open --recovery-key" and any other
program for LUKS2 open the volume, without key provider and network. The key is written to standard output once, on a
terminal also as a QR code. It opens the volume: keep it as safe as the data, and elsewhere.
"""
_EXAMPLES = (
    Example("cryptpilot recovery-key data1", "Add a recovery key."),
    Example("cryptpilot recovery-key data1 --replace", "Replace one that may have been seen."),
)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    options.volume(parser)
    parser.add_argument("--replace", action="store_true", help="revoke the existing recovery keys of the volume")


def _run(config: Config, arguments: argparse.Namespace) -> bool:
    from cryptpilot_boot.cli import keys
    from cryptpilot_boot.commands import recovery_key

    keys.require_shown()
    with terminal.progress():
        return recovery_key.enroll(
            config, arguments.volume, terminal.report_aside, keys.show, replace=arguments.replace
        )


VERB = Verb(_run, _add_arguments, _DESCRIPTION, examples=_EXAMPLES)
