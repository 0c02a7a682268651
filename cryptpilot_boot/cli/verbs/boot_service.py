"""`cryptpilot boot-service`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.boot.plan import STAGES
from cryptpilot_boot.cli import terminal
from cryptpilot_boot.cli.verb import Verb

if TYPE_CHECKING:
    import argparse

    from cryptpilot_boot.config import Config

# Stages of the boot as the existing implementation calls them, of those that there are here too.
_FORMER = {"system-volumes-auto-open": "system"}


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stage", type=_stage, choices=STAGES, required=True, help="which stage of the boot this is")
    parser.add_argument("volumes", nargs="*", metavar="VOLUME", help="only these (default: all that say auto_open)")


def _stage(name: str) -> str:
    return _FORMER.get(name, name)


def _run(config: Config, arguments: argparse.Namespace) -> bool:
    from cryptpilot_boot.commands import boot_service

    return boot_service.boot_service(config, arguments.stage, terminal.say, terminal.settle, arguments.volumes)


VERB = Verb(_run, _add_arguments)
