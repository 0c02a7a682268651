"""What makes the way over from another tool short: adopting, taking over, and the spellings of the existing one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptpilot_boot.cli import terminal, texts

if TYPE_CHECKING:
    from cryptpilot_boot.config import Config

# Stages of the boot as the existing implementation calls them, of those that there are here too.
_STAGES = {"system-volumes-auto-open": "system"}


def add_adopt(commands: Any) -> None:
    """Add the command `adopt`. commands: of the parser, as argparse makes them."""
    one = commands.add_parser(
        "adopt", help="take volumes that another program made, with their data", description=texts.ADOPT
    )
    one.add_argument("volumes", nargs="+", metavar="VOLUME")
    one.set_defaults(parser=one, command="adopt")


def add_overwrite(one: argparse.ArgumentParser) -> None:
    """Add the options by which a temporary volume takes what it did not make."""
    one.add_argument(
        "--overwrite",
        action="append",
        default=[],
        metavar="KIND",
        help="have a temporary volume take a device that holds this, once: crypto_LUKS, ext4, ... as the refusal names"
        " it; what it holds is lost",
    )
    one.add_argument("-y", "--yes", action="store_true", help="do not ask for confirmation of --overwrite")


def add_config_dir(one: argparse.ArgumentParser, *, default: object) -> None:
    """Add the option that names the configuration. default: argparse.SUPPRESS for what is said elsewhere."""
    one.add_argument(
        "-c",
        "--config-dir",
        type=Path,
        default=default,
        metavar="DIR",
        help="read the configuration from DIR (default: /etc/cryptpilot)"
        if default is not argparse.SUPPRESS
        else argparse.SUPPRESS,
    )
    one.add_argument("-d", dest="config_dir", type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def take_config_dir_anywhere(commands: Any) -> None:
    """Have every command, and every action of one, take the option as well; the last one that is given counts."""
    for one in set(commands.choices.values()):
        add_config_dir(one, default=argparse.SUPPRESS)
        for actions in one._actions:
            if isinstance(actions, argparse._SubParsersAction):
                take_config_dir_anywhere(actions)


def add_former_spelling(one: argparse.ArgumentParser, option: str, dest: str) -> None:
    """Add what a switch was called once; --help does not have it."""
    one.add_argument(option, dest=dest, action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def stage(name: str) -> str:
    """Return what a stage of the boot is called here."""
    return _STAGES.get(name, name)


def adopt(config: Config, arguments: argparse.Namespace) -> bool:
    """Run `adopt`; True when all went well."""
    # nothing at boot needs it
    from cryptpilot_boot.commands import adopt as command

    with terminal.progress():
        return command.adopt(config, arguments.volumes, terminal.report, terminal.warn)


def cleared(config: Config, arguments: argparse.Namespace) -> list[str]:
    """Do what `open --overwrite` says; return the names of the volumes that are to be opened then."""
    from cryptpilot_boot.commands import takeover

    confirm = (lambda _: True) if arguments.yes else terminal.confirm
    return takeover.clear(config, arguments.volumes, frozenset(arguments.overwrite), terminal.report, confirm)
