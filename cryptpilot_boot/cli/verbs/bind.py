"""`cryptpilot bind`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.cli import options, reminders, terminal
from cryptpilot_boot.cli.verb import Verb

if TYPE_CHECKING:
    import argparse

    from cryptpilot_boot.config import Config

_DESCRIPTION = """\
Binds each volume to its disk, if the volume's secret opens that disk. From then on no other LUKS2 volume is opened
under this name, even if the same secret opens it. init does that by itself. Bind volumes that older versions made, and
bind again after "cryptsetup reencrypt" or after you have exchanged a disk. The volume may be open or closed."""


def _run(config: Config, arguments: argparse.Namespace) -> bool:
    from cryptpilot_boot.commands import bind
    from cryptpilot_boot.config import load

    with terminal.progress():
        good = bind.bind(config, arguments.volumes, terminal.report)
    reminders.of_stale_images(load(arguments.config_dir))  # what the volumes are bound to is in images too
    return good


VERB = Verb(_run, options.volumes, _DESCRIPTION)
