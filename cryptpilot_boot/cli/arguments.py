"""What may stand on a command line, and what `--help` says of it."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import cryptpilot_boot
from cryptpilot_boot.boot.plan import STAGES
from cryptpilot_boot.config.load import DEFAULT_DIRECTORY
from cryptpilot_boot.errors import nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_EPILOG = """\
exit status:
  0    all is as it was to be; what was open, or closed, already is that too
  1    something failed; what was asked of the other volumes was done
  2    the command line is wrong, or a file of the configuration
  130  interrupted; nothing was left half open

Volumes are described in /etc/cryptpilot/volumes/*.toml, one file each. When one of them is wrong, init, initrd plan and
initrd rebuild do nothing; other commands go on with the others.
"""

_INIT = """\
Makes a LUKS2 volume of each volume's device, and the file system that makefs names. What the device held is lost, so
it is said what that is, and asked. A device that is in use is always refused; one that holds anything unless that is
named with --overwrite. After an interruption or a power cut run it again.
"""

_OPEN = """\
Opens each volume as /dev/mapper/VOLUME, all of them side by side. A temporary volume (one-time password) is made anew:
what it held is gone. Opening what is open is no error.
"""

_ROTATE = """\
Moves each volume to the current value of its secret, after KMS has rotated that: adds a key slot for the current
value, tries it, and only then removes the one for the previous value. The volume may be open or closed, and stays so.
At no moment is it without a key; after an interruption or a power cut run it again. Other key slots are left alone.
"""

_BIND = """\
Binds each volume to what its device holds now, if the volume's secret opens that: from then on no other LUKS2 volume
is opened under this name, even if the same secret opens it. init does that by itself. Bind volumes that older versions
made, and bind again after "cryptsetup reencrypt" or a deliberate exchange of disks. The volume may be open or closed.
"""

_RESIZE = """\
Has each open volume fill its device after that was enlarged, and its file system the volume: ext4 at once, xfs while it
is mounted. It stays open and in use meanwhile. A partition has to be enlarged first, with growpart or parted. A volume
with integrity keeps its size, and nothing is ever made smaller. After an interruption or a power cut run it again.
"""

_RECOVERY_KEY = """\
Enrolls a new random recovery key, beside the volume's secret: with it "cryptpilot open --recovery-key" opens the volume
without a key provider and without a network, and so does any program that opens LUKS2. It is written to standard
output once, on a terminal as a QR code too; whoever has it opens the volume, so keep it as safe as the data, and apart.
"""

_HEADER = """\
The header of a volume, at the beginning of its device, holds what its key is made of: without it nobody reads the data
again, whatever secret he has. A backup of it is 16 MiB, and opens nothing by itself.
"""

_BACKUP = """\
Writes the header of a volume, open or not, to a new file. Whoever has the file, and a secret or recovery key that opens
the volume now, can always open it: also when they have been replaced. Make a new one when they have been.
"""

_RESTORE = """\
Puts the header of a closed volume back, if the file is a sound one of that volume: the header that is there has to be
of the same volume; where that is lost or damaged, the volume is opened by the file first, without writing to it, to see
whether there is a file system. A header that the secret opens no more is not put back either, nor is one of another
volume ever replaced. After a power cut run it again.
"""

_CHECK = """\
Finds out by day what would fail at night: for each volume whether its files can be used, its device is there and
sound, its key provider answers, and whether the key opens it. Nothing is opened or changed.
"""

_REPORT = """\
Shows what the boot agent did in this boot, in the initrd and after it: each step with when it began and how long it
took, with waits and failures marked; then for each volume which stage opened it and when, or why it is not open and
what to do. It needs no configuration, and runs in the initrd's emergency shell too. The event log it reads is root's.
"""

_INITRD = """\
The initrd has its own copy of the agent and of the configuration of the volumes it opens, so it has to be made anew
after a change. status tells whether it has to be, rebuild does it, check looks whether an image would do its work.
"""

_STATUS = """\
Shows for each installed kernel where its image is, whether cryptpilot is in it, whether the configuration and the
agent in it are those of this machine, which volumes it opens, and how many bytes all that adds to it, plain and as
the image is compressed. Exit status 1 when an image is stale or lacks what it needs.
"""

_CHECK_IMAGE = """\
Finds out before a reboot whether an image would do its work: unpacks it, runs its agent there, and looks for its
programs, libraries, kernel modules, what starts the agent, and the network if it is needed; and whether it was made
from the configuration and the agent of this machine. An IMAGE from elsewhere is run as well: check what you trust.
"""

_REBUILD = """\
Has dracut make the image anew, beside the old one; checks it as "check" does, and only then puts it in place of the
old one. Whatever fails or interrupts that, the old image stays as it was. Says what has changed.
"""


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
    return arguments


def _parser() -> argparse.ArgumentParser:
    """Return the parser; its result names the command in `command` ("initrd plan" in full), and its own parser.

    needs_all_files: whether the command must not go on when a file of the configuration cannot be used. boots: whether
    the command decides itself what that means. needs_configuration: False when it has no use for one.
    """
    top = _Parser(
        prog="cryptpilot",
        description="Encrypts disks with LUKS2 and has them unlock themselves at boot.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"cryptpilot {cryptpilot_boot.__version__}")
    top.add_argument(
        "-c",
        "--config-dir",
        type=Path,
        default=DEFAULT_DIRECTORY,
        metavar="DIR",
        help="read the configuration from DIR (default: %(default)s)",
    )
    top.set_defaults(needs_configuration=True, needs_all_files=False, boots=False)
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    one = commands.add_parser("show", help="show the volumes and where they stand")
    one.add_argument("volumes", nargs="*", metavar="VOLUME", help="only these (default: all)")
    one.add_argument("--json", action="store_true", help="print JSON for programs")
    one.set_defaults(parser=one, command="show")

    one = commands.add_parser(
        "init", help="initialize persistent volumes; the data on their devices is lost", description=_INIT
    )
    one.add_argument("volumes", nargs="+", metavar="VOLUME")
    one.add_argument("-y", "--yes", action="store_true", help="do not ask for confirmation")
    one.add_argument(
        "--force-reinit", action="store_true", help="even if a volume is initialized already: what it holds is lost"
    )
    one.add_argument(
        "--overwrite",
        action="append",
        default=[],
        metavar="KIND",
        help="even if the device holds this: ext4, gpt, crypto_LUKS, ... as the refusal names it",
    )
    # it destroys data: no file may hide a volume that has the device already
    one.set_defaults(parser=one, command="init", needs_all_files=True)

    one = commands.add_parser("open", help="open volumes as /dev/mapper/VOLUME", description=_OPEN)
    one.add_argument("volumes", nargs="+", metavar="VOLUME")
    one.add_argument(
        "--check-fs",
        action="store_true",
        help="check the file system that makefs names first, and mend what needs no question",
    )
    one.add_argument(
        "--recovery-key",
        action="store_true",
        help="ask for the recovery key of one volume, and no key provider; without a terminal it is the first line of"
        " standard input",
    )
    one.set_defaults(parser=one, command="open")

    one = commands.add_parser("close", help="close volumes; what a temporary volume held is lost")
    one.add_argument("volumes", nargs="+", metavar="VOLUME")
    one.set_defaults(parser=one, command="close")

    one = commands.add_parser(
        "rotate", help="move volumes to the current values of their secrets, which KMS has rotated", description=_ROTATE
    )
    one.add_argument("volumes", nargs="+", metavar="VOLUME")
    one.set_defaults(parser=one, command="rotate")

    one = commands.add_parser(
        "bind", help="bind volumes to what their devices hold, so that no other opens instead", description=_BIND
    )
    one.add_argument("volumes", nargs="+", metavar="VOLUME")
    one.set_defaults(parser=one, command="bind")

    one = commands.add_parser(
        "resize", help="grow open volumes whose devices were enlarged, and their file systems", description=_RESIZE
    )
    one.add_argument("volumes", nargs="+", metavar="VOLUME")
    one.set_defaults(parser=one, command="resize")

    one = commands.add_parser(
        "recovery-key", help="enroll a recovery key: a way in without the key provider", description=_RECOVERY_KEY
    )
    one.add_argument("volume", metavar="VOLUME")
    one.add_argument("--replace", action="store_true", help="older recovery keys of the volume open it no more")
    one.set_defaults(parser=one, command="recovery-key")

    _add_header_commands(commands)

    one = commands.add_parser("config", help="the configuration")
    actions = one.add_subparsers(required=True, metavar="ACTION")
    one = actions.add_parser("check", help="check that every volume can be opened", description=_CHECK)
    one.add_argument("--keep-checking", action="store_true", help="go on after the first error")
    one.add_argument("--skip-check-passphrase", action="store_true", help="ask no key provider")
    one.set_defaults(parser=one, command="config check")

    one = commands.add_parser("boot-service", help="open the auto_open volumes of a boot stage (run by systemd)")
    one.add_argument("--stage", choices=STAGES, required=True, help="which stage of the boot this is")
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
    one = actions.add_parser("report", help="show the timeline of this boot", description=_REPORT)
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

    one = commands.add_parser("initrd", help="initrd images: where they stand, make them anew", description=_INITRD)
    actions = one.add_subparsers(required=True, metavar="ACTION")
    one = actions.add_parser("plan", help="print what the initrd must carry (for the dracut module)")
    one.set_defaults(parser=one, command="initrd plan", needs_all_files=True)  # an image has to be complete
    one = actions.add_parser("record", help="print what the initrd is made from (for the dracut module)")
    one.set_defaults(parser=one, command="initrd record", needs_all_files=True)
    _add_image_commands(actions)
    return top


def _add_header_commands(commands: argparse._SubParsersAction[_Parser]) -> None:
    one = commands.add_parser("header", help="save the LUKS2 header of a volume, and put it back", description=_HEADER)
    actions = one.add_subparsers(required=True, metavar="ACTION")
    one = actions.add_parser("backup", help="write the header of a volume to a new file", description=_BACKUP)
    one.add_argument("volume", metavar="VOLUME")
    one.add_argument("file", type=Path, metavar="FILE")
    one.set_defaults(parser=one, command="header backup")

    one = actions.add_parser("restore", help="put the header of a volume back", description=_RESTORE)
    one.add_argument("volume", metavar="VOLUME")
    one.add_argument("file", type=Path, metavar="FILE")
    one.add_argument("-y", "--yes", action="store_true", help="do not ask for confirmation")
    one.add_argument(
        "--recovery-key",
        action="store_true",
        help="ask for the recovery key, if it has to be opened, and no key provider",
    )
    one.add_argument(
        "--force", action="store_true", help="even if nothing proves that the file belongs to what is on the device"
    )
    one.add_argument(
        "--overwrite",
        action="append",
        default=[],
        metavar="KIND",
        help="even if this stands in the header's place: ext4, gpt, ... as the refusal names it",
    )
    one.set_defaults(parser=one, command="header restore")


def _add_image_commands(actions: argparse._SubParsersAction[_Parser]) -> None:
    one = actions.add_parser("status", help="show whether each kernel's image is current", description=_STATUS)
    one.add_argument("--json", action="store_true", help="print JSON for programs")
    one.set_defaults(parser=one, command="initrd status")

    one = actions.add_parser("check", help="check that an image would do its work", description=_CHECK_IMAGE)
    which = one.add_mutually_exclusive_group()
    which.add_argument("image", nargs="?", type=Path, metavar="IMAGE", help="this file")
    which.add_argument("--kernel", metavar="VERSION", help="the image of this kernel (default: of the one that runs)")
    one.set_defaults(parser=one, command="initrd check")

    one = actions.add_parser(
        "rebuild",
        help="make an image anew; the old one stays until the new one is checked",
        description=_REBUILD,
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
