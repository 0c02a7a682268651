"""`cryptpilot initrd status`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.cli import options, terminal
from cryptpilot_boot.cli.verb import Verb

if TYPE_CHECKING:
    import argparse

    from cryptpilot_boot.config import Config

_DESCRIPTION = """\
Shows for each installed kernel where its image is, whether cryptpilot is in it, and whether configuration and agent in
it are those of this machine. Also shows which volumes the image opens, and how many bytes this adds to it, plain and
compressed. Exit status 1 if an image is stale or lacks what it needs."""


def _run(config: Config, arguments: argparse.Namespace) -> bool:
    from cryptpilot_boot.commands import image_status

    with terminal.progress():
        return image_status.status(config, as_json=arguments.json, say=terminal.say)


VERB = Verb(_run, options.json, _DESCRIPTION)
