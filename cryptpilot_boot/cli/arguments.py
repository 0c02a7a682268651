"""What may stand on a command line, and what `--help` says of it."""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import cryptpilot_boot
from cryptpilot_boot.boot.plan import STAGES
from cryptpilot_boot.cli import images, moving, texts
from cryptpilot_boot.config.load import DEFAULT_DIRECTORY
from cryptpilot_boot.errors import nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class _Parser(argparse.ArgumentParser):
    """Says what may have been meant, and takes no option that is not written in full: some destroy data."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Print the usage and the complaint; exit with status 2."""
        wrong = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if wrong:
            message += _did_you_mean(wrong[1], re.findall(r"[\w-]+", wrong[2]))
        super().error(message)


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    near = nearest(word, known)
    return f"; did you mean {near}?" if near else ""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return what a command line asks for; see `_parser`. Exits with status 2 and says why if that makes no sense."""
    os.environ["LANGUAGE"] = "C"  # or argparse looks for a translation of its own words in hundreds of places
    words = list(sys.argv[1:] if argv is None else argv)
    # what follows is dracut's, and argparse would mix it with ours
    end = words.index("--") if "--" in words and "rebuild" in words else len(words)
    arguments, unknown = _parser().parse_known_args(words[:end])
    if arguments.command == "initrd rebuild":
        arguments.options = words[end + 1 :]
    elif end < len(words):  # something else is called that
        arguments, unknown = _parser().parse_known_args(words)
    if unknown:
        # by the command's own parser, which knows what it takes
        known = re.findall(r"--[\w-]+", arguments.parser.format_help())
        arguments.parser.error(f"unrecognized argument: {unknown[0]}{_did_you_mean(unknown[0], known)}")
    if arguments.command == "open" and arguments.recovery_key and len(arguments.volumes) > 1:
        arguments.parser.error("--recovery-key is of one volume")
    if arguments.command == "open" and arguments.recovery_key and arguments.overwrite:
        arguments.parser.error("--overwrite is for temporary volumes, which have no recovery key")
    if arguments.command == "open" and arguments.overwrite:
        arguments.needs_all_files = True  # as init: no file may hide a volume that has the device already
    return arguments


def _parser() -> argparse.ArgumentParser:
    """Return the parser; its result names the command in `command` ("initrd plan" in full), and its own parser.

    needs_all_files: whether the command must not go on when a file of the configuration cannot be used. boots: whether
    the command decides itself what that means. needs_configuration: False when it has no use for one.
    """
    top = _Parser(
        prog="cryptpilot",
        description="Encrypts disks with LUKS2 and has them unlock themselves at boot.",
        epilog=texts.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"cryptpilot {cryptpilot_boot.__version__}")
    moving.add_config_dir(top, default=DEFAULT_DIRECTORY)
    top.set_defaults(needs_configuration=True, needs_all_files=False, boots=False)
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    one = commands.add_parser("show", help="show the volumes and their states")
    one.add_argument("volumes", nargs="*", metavar="VOLUME", help="only these (default: all)")
    one.add_argument("--json", action="store_true", help="print JSON for programs")
    one.set_defaults(parser=one, command="show")

    one = commands.add_parser(
        "init", help="initialize persistent volumes; the data on their devices is lost", description=texts.INIT
    )
    one.add_argument("volumes", nargs="+", metavar="VOLUME")
    one.add_argument("-y", "--yes", action="store_true", help="do not ask for confirmation")
    one.add_argument("--force-reinit", action="store_true", help="initialize a volume again: destroys all data in it")
    one.add_argument(
        "--overwrite",
        action="append",
        default=[],
        metavar="KIND",
        help="overwrite this on the device: ext4, gpt, crypto_LUKS, ... as the error names it",
    )
    # it destroys data: no file may hide a volume that has the device already
    one.set_defaults(parser=one, command="init", needs_all_files=True)

    moving.add_adopt(commands)
    images.add_convert(commands)
    images.add_image(commands)

    one = commands.add_parser("open", help="open volumes as /dev/mapper/VOLUME", description=texts.OPEN)
    one.add_argument("volumes", nargs="+", metavar="VOLUME")
    one.add_argument(
        "--check-fs",
        action="store_true",
        help="check the file system first, as makefs names it, and repair what needs no question",
    )
    one.add_argument(
        "--recovery-key",
        action="store_true",
        help="ask for the recovery key of one volume, and no key provider; without a terminal it is the first line of"
        " standard input",
    )
    moving.add_overwrite(one)
    one.set_defaults(parser=one, command="open")

    one = commands.add_parser("close", help="close volumes; a temporary volume loses its data")
    one.add_argument("volumes", nargs="+", metavar="VOLUME")
    one.set_defaults(parser=one, command="close")

    one = commands.add_parser(
        "enroll", help="have a volume take the secret of another of its sources, too", description=texts.ENROLL
    )
    one.add_argument("volume", metavar="VOLUME")
    one.add_argument("source", metavar="SOURCE", help='"encrypt", "fallback1", ..., or a key provider such as "exec"')
    one.add_argument(
        "--recovery-key", action="store_true", help="ask for the recovery key, and none of the other sources"
    )
    one.set_defaults(parser=one, command="enroll")

    one = commands.add_parser(
        "rotate",
        help="move volumes to the current values of their secrets, which KMS has rotated",
        description=texts.ROTATE,
    )
    one.add_argument("volumes", nargs="+", metavar="VOLUME")
    one.set_defaults(parser=one, command="rotate")

    one = commands.add_parser(
        "bind", help="bind volumes to their disks, so that no other disk opens instead", description=texts.BIND
    )
    one.add_argument("volumes", nargs="+", metavar="VOLUME")
    one.set_defaults(parser=one, command="bind")

    one = commands.add_parser(
        "resize", help="grow open volumes whose devices were enlarged, and their file systems", description=texts.RESIZE
    )
    one.add_argument("volumes", nargs="+", metavar="VOLUME")
    one.set_defaults(parser=one, command="resize")

    one = commands.add_parser(
        "recovery-key",
        help="enroll a recovery key, which opens a volume without its key provider",
        description=texts.RECOVERY_KEY,
    )
    one.add_argument("volume", metavar="VOLUME")
    one.add_argument("--replace", action="store_true", help="revoke the existing recovery keys of the volume")
    one.set_defaults(parser=one, command="recovery-key")

    _add_header_commands(commands)

    one = commands.add_parser("config", help="the configuration")
    actions = one.add_subparsers(required=True, metavar="ACTION")
    one = actions.add_parser("check", help="check that every volume can be opened", description=texts.CHECK)
    one.add_argument("--keep-checking", action="store_true", help="go on after the first error")
    one.add_argument("--skip-check-passphrase", action="store_true", help="ask no key provider")
    moving.add_former_spelling(one, "--skip-check-key", "skip_check_passphrase")
    one.set_defaults(parser=one, command="config check")

    one = commands.add_parser("boot-service", help="open the auto_open volumes of a boot stage (run by systemd)")
    one.add_argument(
        "--stage", type=moving.stage, choices=STAGES, required=True, help="which stage of the boot this is"
    )
    one.add_argument("volumes", nargs="*", metavar="VOLUME", help="only these (default: all that say auto_open)")
    one.set_defaults(parser=one, command="boot-service", boots=True)

    one = commands.add_parser(
        "generator", help="write units for the volumes (run by systemd, see systemd.generator(7))"
    )
    for name in ("normal", "early", "late"):
        one.add_argument(name, type=Path, metavar=f"{name.upper()}-DIR")
    one.set_defaults(parser=one, command="generator", boots=True)

    one = commands.add_parser("boot", help="what happened at boot")
    actions = one.add_subparsers(required=True, metavar="ACTION")
    one = actions.add_parser("report", help="show the timeline of this boot", description=texts.REPORT)
    form = one.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON for programs")
    form.add_argument("--svg", metavar="FILE", help="write a picture to FILE, which is replaced; - for standard output")
    one.add_argument(
        "--log",
        type=Path,
        metavar="FILE",
        help="read this event log, say of another machine (default: /run/cryptpilot/events.jsonl, this boot's)",
    )
    one.set_defaults(parser=one, command="boot report", needs_configuration=False)

    one = commands.add_parser("initrd", help="check and rebuild initrd images", description=texts.INITRD)
    actions = one.add_subparsers(required=True, metavar="ACTION")
    one = actions.add_parser("plan", help="print what the initrd must carry (for the dracut module)")
    one.set_defaults(parser=one, command="initrd plan", needs_all_files=True)  # an image has to be complete
    one = actions.add_parser("record", help="print what the initrd is made from (for the dracut module)")
    one.set_defaults(parser=one, command="initrd record", needs_all_files=True)
    _add_image_commands(actions)
    moving.take_config_dir_anywhere(commands)
    return top


def _add_header_commands(commands: argparse._SubParsersAction[_Parser]) -> None:
    one = commands.add_parser(
        "header", help="save the LUKS2 header of a volume, and put it back", description=texts.HEADER
    )
    actions = one.add_subparsers(required=True, metavar="ACTION")
    one = actions.add_parser("backup", help="write the header of a volume to a new file", description=texts.BACKUP)
    one.add_argument("volume", metavar="VOLUME")
    one.add_argument("file", type=Path, metavar="FILE")
    one.set_defaults(parser=one, command="header backup")

    one = actions.add_parser("restore", help="put the header of a volume back", description=texts.RESTORE)
    one.add_argument("volume", metavar="VOLUME")
    one.add_argument("file", type=Path, metavar="FILE")
    one.add_argument("-y", "--yes", action="store_true", help="do not ask for confirmation")
    one.add_argument(
        "--recovery-key",
        action="store_true",
        help="ask for the recovery key, if it has to be opened, and no key provider",
    )
    one.add_argument(
        "--force", action="store_true", help="restore even if the file cannot be proven to belong to this device"
    )
    one.add_argument(
        "--overwrite",
        action="append",
        default=[],
        metavar="KIND",
        help="overwrite this in the header's place: ext4, gpt, ... as the error names it",
    )
    one.set_defaults(parser=one, command="header restore")


def _add_image_commands(actions: argparse._SubParsersAction[_Parser]) -> None:
    one = actions.add_parser("status", help="show whether each kernel's image is current", description=texts.STATUS)
    one.add_argument("--json", action="store_true", help="print JSON for programs")
    one.set_defaults(parser=one, command="initrd status")

    one = actions.add_parser("check", help="check that an image would do its work", description=texts.CHECK_IMAGE)
    which = one.add_mutually_exclusive_group()
    which.add_argument("image", nargs="?", type=Path, metavar="IMAGE", help="this file")
    which.add_argument("--kernel", metavar="VERSION", help="the image of this kernel (default: of the one that runs)")
    one.set_defaults(parser=one, command="initrd check")

    one = actions.add_parser(
        "rebuild",
        help="rebuild an image; the old one stays until the new one has passed its check",
        description=texts.REBUILD,
        usage="%(prog)s [-h] [--kernel VERSION | --all] [--if-included] [-- DRACUT-OPTIONS...]",
    )
    which = one.add_mutually_exclusive_group()
    which.add_argument("--kernel", metavar="VERSION", help="of this kernel (default: of the one that runs)")
    which.add_argument("--all", action="store_true", help="of every kernel that has one; goes on after an error")
    one.add_argument(
        "--if-included",
        action="store_true",
        help="only images that have cryptpilot already; nothing where no volume is configured (as packages do)",
    )
    one.set_defaults(parser=one, command="initrd rebuild", needs_all_files=True, options=[])
