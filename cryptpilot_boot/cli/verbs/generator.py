"""`cryptpilot generator`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot.cli.verb import Verb

if TYPE_CHECKING:
    import argparse

    from cryptpilot_boot.config import Config


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    for name in ("normal", "early", "late"):
        parser.add_argument(name, type=Path, metavar=f"{name.upper()}-DIR")


def _run(config: Config, arguments: argparse.Namespace) -> bool:
    from cryptpilot_boot.commands import generator

    generator.generate(config, arguments.normal, arguments.early)
    return True


VERB = Verb(_run, _add_arguments)
