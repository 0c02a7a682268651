"""`cryptpilot initrd check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot.cli import terminal
from cryptpilot_boot.cli.verb import Example, Verb

if TYPE_CHECKING:
    import argparse

    from cryptpilot_boot.config import Config

_DESCRIPTION = """\
Finds before a reboot whether an image would work: unpacks it, runs its agent, and compares it with the configuration
and the agent of this machine. Looks for programs, libraries, kernel modules, the unit or hook that starts the agent,
and the network if a volume needs it. The agent in IMAGE is run: check only images that you trust."""
_EXAMPLES = (
    Example("cryptpilot initrd check", "Check the image of the running kernel, before a reboot."),
    Example("cryptpilot initrd check /boot/initrd.img-6.1.0-56-amd64", "Check this file."),
)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument("image", nargs="?", type=Path, metavar="IMAGE", help="this file")
    which.add_argument("--kernel", metavar="VERSION", help="the image of this kernel (default: of the one that runs)")


def _run(config: Config, arguments: argparse.Namespace) -> bool:
    from cryptpilot_boot.commands import image_check

    with terminal.progress():
        return image_check.check(config, arguments.image, arguments.kernel, terminal.say, terminal.explain)


VERB = Verb(_run, _add_arguments, _DESCRIPTION, examples=_EXAMPLES)
