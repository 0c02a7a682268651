"""`cryptpilot enroll`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.cli import options, terminal
from cryptpilot_boot.cli.verb import Example, Verb

if TYPE_CHECKING:
    import argparse

    from cryptpilot_boot.config import Config

_DESCRIPTION = """\
Adds a key slot for the current secret of SOURCE to a persistent volume, open or closed. From then on SOURCE opens the
volume too. SOURCE is one of the sources in the volume's file: "encrypt" for its [encrypt] table, "fallback1" for the
first [[fallback]], and so on; or the name of a key provider that only one of them has. Another source of the volume
has to open it, or its recovery key. "init" does this for all sources of a new volume. If SOURCE opens the volume
already, nothing is changed. A source that seals its key into the volume's header, such as the TPM, always gets a new
key. That key is sealed to what the machine has started, for example a new kernel. The older key is removed once the
new one was tried. Nothing else is removed."""
_EXAMPLES = (
    Example("cryptpilot enroll data1 fallback1", "After a [[fallback]] was added to the file of data1."),
    Example("cryptpilot enroll data1 tpm2 --recovery-key", "Seal a new key when the TPM no longer gives the old one."),
)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    options.volume(parser)
    parser.add_argument(
        "source", metavar="SOURCE", help='"encrypt", "fallback1", ..., or a key provider such as "exec"'
    )
    options.recovery_key(parser, "unlock with the recovery key, not with another source")


def _run(config: Config, arguments: argparse.Namespace) -> bool:
    from cryptpilot_boot.cli import keys
    from cryptpilot_boot.commands import enroll

    ask_key = keys.ask if arguments.recovery_key else None
    with terminal.progress():
        return enroll.enroll(config, arguments.volume, arguments.source, terminal.report, ask_key)


VERB = Verb(_run, _add_arguments, _DESCRIPTION, examples=_EXAMPLES)
