"""`cryptpilot resize`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.cli import options, terminal
from cryptpilot_boot.cli.verb import Verb

if TYPE_CHECKING:
    import argparse

    from cryptpilot_boot.config import Config

_DESCRIPTION = """\
Grows open volumes to the size of their devices, and the file systems with them: ext4 at once, xfs while it is
mounted. The volume stays in use. Enlarge a partition first, with growpart or parted. A volume with integrity keeps its
size, and nothing is ever made smaller. After an interruption or a power cut, run it again.
"""


def _run(config: Config, arguments: argparse.Namespace) -> bool:
    from cryptpilot_boot.commands import resize

    with terminal.progress():
        return resize.resize(config, arguments.volumes, terminal.report)


VERB = Verb(_run, options.volumes, _DESCRIPTION)
