"""`cryptpilot rotate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.cli import options, terminal
from cryptpilot_boot.cli.verb import Example, Verb

if TYPE_CHECKING:
    import argparse

    from cryptpilot_boot.config import Config

_DESCRIPTION = """\
Moves each volume to the current value of its secret, after KMS has rotated it: adds a key slot for the current
value, tries it, and then removes the one for the previous value. The volume may be open or closed, and stays so. At
each moment one of the values opens it; after an interruption or a power cut, run it again. Other key slots stay.
"""
_EXAMPLES = (Example("cryptpilot rotate data1", "Take the new value of a secret that was rotated in KMS."),)


def _run(config: Config, arguments: argparse.Namespace) -> bool:
    from cryptpilot_boot.commands import rotate

    with terminal.progress():
        return rotate.rotate(config, arguments.volumes, terminal.report)


VERB = Verb(_run, options.volumes, _DESCRIPTION, examples=_EXAMPLES)
