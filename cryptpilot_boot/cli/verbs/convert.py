"""`cryptpilot convert`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot.cli import options, terminal
from cryptpilot_boot.cli.paths import absolute
from cryptpilot_boot.cli.verb import Example, Verb

if TYPE_CHECKING:
    import argparse

    from cryptpilot_boot.config import Config

_DESCRIPTION = """\
Writes a new image: the same system, with its root in a LUKS2 volume that is opened at boot, and cryptpilot installed.
IN is only read. OUT must not exist, and gets its name when it is complete. An image that cannot be converted is refused
before anything is written; --dry-run checks that. The image's own dracut and GRUB are run as root, in the new image:
convert only images that you would boot. /boot stays readable for the host, with the client key in the initrd.
With --device, the root of a disk that is attached here is encrypted in place; after an interruption or a power cut,
run the same command again to continue. Have a backup: the disk may fail meanwhile.
"""
_EXAMPLES = (
    Example(
        "cryptpilot convert server.qcow2 encrypted.qcow2 --volume root --dry-run",
        "Find whether the image can be converted, and how.",
    ),
    Example(
        "cryptpilot convert server.qcow2 encrypted.qcow2 --volume root",
        "Write the new image, with its root in the volume root.",
    ),
    Example("cryptpilot convert --device /dev/vdb --volume root", "Encrypt the root on an attached disk in place."),
)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", nargs="?", type=Path, metavar="IN", help="the image of a whole disk: raw, qcow2 or VHD"
    )
    parser.add_argument(
        "target",
        nargs="?",
        type=Path,
        metavar="OUT",
        help="the new image: its name says the format, *.qcow2, *.vhd, or raw",
    )
    parser.add_argument(
        "--device",
        type=Path,
        metavar="DISK",
        help="encrypt in place the root of another machine, whose disk is attached here; replaces IN and OUT",
    )
    parser.add_argument(
        "--volume",
        required=True,
        metavar="NAME",
        help="the volume that the root becomes; dev in its file names the partition",
    )
    parser.add_argument(
        "--secret-file",
        type=Path,
        metavar="FILE",
        help="read the secret from this file instead of asking the key provider",
    )
    parser.add_argument("--recovery-key", action="store_true", help="enroll a recovery key and print it")
    parser.add_argument(
        "--package",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="install this package, .deb or .rpm, in the new image first; may be repeated",
    )
    parser.add_argument(
        "--uki",
        action="store_true",
        help="boot a unified kernel image instead of GRUB, so that its measurements can be computed; UEFI only",
    )
    options.signing(parser, "--uki-key", "--uki-cert")
    parser.add_argument("--dry-run", action="store_true", help="print the plan, and write nothing")


def _run(config: Config, arguments: argparse.Namespace) -> bool:
    from cryptpilot_boot.cli import keys
    from cryptpilot_boot.commands import convert, convert_device
    from cryptpilot_boot.convert.plan import Unified
    from cryptpilot_boot.keys import given

    key, certificate = (path and absolute(path) for path in (arguments.uki_key, arguments.uki_cert))
    if bool(key) != bool(certificate) or (key and not arguments.uki):
        arguments.parser.error("--uki-key and --uki-cert go together, and with --uki")
    exposed = given.exposure(arguments.secret_file) if arguments.secret_file else ""
    if exposed:
        terminal.warn(exposed)
    settings = convert.Options(
        arguments.volume,
        arguments.secret_file,
        recovery_key=arguments.recovery_key,
        dry_run=arguments.dry_run,
        unified=Unified(key, certificate) if arguments.uki else None,
        packages=tuple(absolute(path) for path in arguments.package),
    )
    if arguments.recovery_key:
        keys.require_shown()
    # the key is alone on standard output
    say = terminal.complain if arguments.recovery_key else _tell
    if arguments.device:
        if arguments.source or arguments.uki:
            arguments.parser.error(f"--device takes no {'IN and OUT' if arguments.source else '--uki'}")
        with terminal.progress(lines=True):
            return convert_device.convert(config, arguments.device, settings, say, keys.show)
    if not arguments.target:
        arguments.parser.error("IN and OUT are missing, or --device DISK")
    with terminal.progress(lines=True):
        return convert.convert(config, absolute(arguments.source), absolute(arguments.target), settings, say, keys.show)


def _tell(line: str) -> None:
    terminal.tell(terminal.plain(line))


VERB = Verb(
    _run,
    _add_arguments,
    _DESCRIPTION,
    usage="%(prog)s [-h] (IN OUT | --device DISK) --volume NAME [OPTIONS]",
    examples=_EXAMPLES,
)
