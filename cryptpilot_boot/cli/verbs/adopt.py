"""`cryptpilot adopt`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.cli import options, reminders, terminal
from cryptpilot_boot.cli.verb import Example, Verb

if TYPE_CHECKING:
    import argparse

    from cryptpilot_boot.config import Config

_DESCRIPTION = """\
Adopts LUKS2 volumes that another program made, with all their data: cryptpilot 0.1 to 0.3.2, cryptsetup, clevis. The
secret that the volume's file names must open the volume. The header then gets the mark of cryptpilot, and the name is
bound to it, as by init. Nothing else is changed or overwritten. The volume may be open or in use, and stays so. After
an interruption or a power cut, run it again."""
_EXAMPLES = (Example("cryptpilot adopt data1", "Take over the volume data1 that cryptsetup or clevis made."),)


def _run(config: Config, arguments: argparse.Namespace) -> bool:
    from cryptpilot_boot.commands import adopt
    from cryptpilot_boot.config import load

    with terminal.progress():
        good = adopt.adopt(config, arguments.volumes, terminal.report, terminal.warn)
    reminders.of_stale_images(load(arguments.config_dir))  # what the volumes are bound to is in images too
    return good


VERB = Verb(_run, options.volumes, _DESCRIPTION, examples=_EXAMPLES)
