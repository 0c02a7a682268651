"""`cryptpilot initrd rebuild`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.cli import terminal
from cryptpilot_boot.cli.verb import Example, Verb

if TYPE_CHECKING:
    import argparse

    from cryptpilot_boot.config import Config

_DESCRIPTION = """\
Has dracut make a new image beside the old one, checks it as "check" does, and then replaces the old one. If anything
fails or is interrupted, the old image stays as it was. Shows what has changed.
"""
_EXAMPLES = (
    Example("cryptpilot initrd rebuild", "Rebuild the image of the running kernel."),
    Example("cryptpilot initrd rebuild --all", "Rebuild the images of all kernels."),
    Example("cryptpilot initrd rebuild -- --add lvm", "Have dracut add another of its modules."),
)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--kernel", metavar="VERSION", help="of this kernel (default: of the one that runs)")
    which.add_argument("--all", action="store_true", help="of every kernel that has one; goes on after an error")
    parser.add_argument(
        "--if-included",
        action="store_true",
        help="only images that have cryptpilot already; nothing where no volume is configured (as packages do)",
    )


def _run(config: Config, arguments: argparse.Namespace) -> bool:
    from cryptpilot_boot.commands import image_rebuild

    with terminal.progress():
        choice = image_rebuild.Choice(arguments.kernel, arguments.all, arguments.if_included)
        return image_rebuild.rebuild(config, choice, arguments.options, terminal.tell, terminal.explain)


VERB = Verb(
    _run,
    _add_arguments,
    _DESCRIPTION,
    usage="%(prog)s [-h] [--kernel VERSION | --all] [--if-included] [-- DRACUT-OPTIONS...]",
    examples=_EXAMPLES,
)
