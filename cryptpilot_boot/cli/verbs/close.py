"""`cryptpilot close`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.cli import options, terminal
from cryptpilot_boot.cli.verb import Verb

if TYPE_CHECKING:
    import argparse

    from cryptpilot_boot.config import Config


def _run(config: Config, arguments: argparse.Namespace) -> bool:
    from cryptpilot_boot.commands import volumes

    with terminal.progress():
        return volumes.close(config, arguments.volumes, terminal.report, terminal.warn)


VERB = Verb(_run, options.volumes)
