"""Disk images on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptpilot_boot.cli import terminal, texts
from cryptpilot_boot.cli.paths import absolute

if TYPE_CHECKING:
    import argparse

    from cryptpilot_boot.config import Config


def add_convert(commands: Any) -> None:
    """Add the command `convert`. commands: of the parser, as argparse makes them."""
    one = commands.add_parser(
        "convert",
        help="encrypt the root of an ordinary disk image, or of a disk",
        description=texts.CONVERT,
        usage="%(prog)s [-h] (IN OUT | --device DISK) --volume NAME [OPTIONS]",
    )
    one.add_argument("source", nargs="?", type=Path, metavar="IN", help="the image of a whole disk: raw, qcow2 or VHD")
    one.add_argument(
        "target",
        nargs="?",
        type=Path,
        metavar="OUT",
        help="the new image: its name says the format, *.qcow2, *.vhd, or raw",
    )
    one.add_argument(
        "--device",
        type=Path,
        metavar="DISK",
        help="encrypt in place the root of another machine, whose disk is attached here; replaces IN and OUT",
    )
    one.add_argument(
        "--volume",
        required=True,
        metavar="NAME",
        help="the volume that the root becomes; dev in its file names the partition",
    )
    one.add_argument(
        "--secret-file",
        type=Path,
        metavar="FILE",
        help="read the secret from this file instead of asking the key provider",
    )
    one.add_argument("--recovery-key", action="store_true", help="enroll a recovery key and print it")
    one.add_argument(
        "--package",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="install this package, .deb or .rpm, in the new image first; may be repeated",
    )
    one.add_argument(
        "--uki",
        action="store_true",
        help="boot a unified kernel image instead of GRUB, so that its measurements can be computed; UEFI only",
    )
    _add_signing(one, "--uki-key", "--uki-cert")
    one.add_argument("--dry-run", action="store_true", help="say what would be made, and write nothing")
    one.set_defaults(parser=one, command="convert", needs_all_files=True)


def add_image(commands: Any) -> None:
    """Add the commands `image ...`. commands: of the parser, as argparse makes them."""
    one = commands.add_parser("image", help="disk images")
    actions = one.add_subparsers(required=True, metavar="ACTION")
    one = actions.add_parser(
        "measure", help="show the measurements of a machine that boots the image", description=texts.MEASURE
    )
    one.add_argument("image", type=Path, metavar="IMAGE", help="the image of a whole disk: raw, qcow2 or VHD")
    one.add_argument("--json", action="store_true", help="print JSON for programs")
    one.add_argument(
        "--secure-boot", action="store_true", help="compute for firmware that has Secure Boot on: PCR 4 differs"
    )
    one.set_defaults(parser=one, command="image measure", needs_configuration=False)
    one = actions.add_parser(
        "unify", help="make the unified kernel image of this machine again", description=texts.UNIFY
    )
    _add_signing(one, "--key", "--cert")
    one.set_defaults(parser=one, command="image unify", needs_all_files=True)


def _add_signing(parser: argparse.ArgumentParser, key: str, certificate: str) -> None:
    parser.add_argument(key, type=Path, metavar="FILE", help="sign the unified kernel image with this key (PEM)")
    parser.add_argument(certificate, type=Path, metavar="FILE", help="the certificate of that key (PEM)")


def unify(config: Config, arguments: argparse.Namespace) -> bool:
    """Run `image unify`; True when the image was made."""
    # nothing at boot needs them
    from cryptpilot_boot.commands import image_unify
    from cryptpilot_boot.convert.plan import Unified

    key, certificate = (path and absolute(path) for path in (arguments.key, arguments.cert))
    if bool(key) != bool(certificate):
        arguments.parser.error("--key and --cert go together")
    with terminal.progress():
        return image_unify.remake(config, Unified(key, certificate), terminal.say, terminal.explain)


def measure(_: Config, arguments: argparse.Namespace) -> bool:
    """Run `image measure`; True when all could be said."""
    # nothing at boot needs it
    from cryptpilot_boot.commands import image_measure

    with terminal.progress():
        return image_measure.measure(
            absolute(arguments.image), secure_boot=arguments.secure_boot, as_json=arguments.json, say=terminal.say
        )


def convert(config: Config, arguments: argparse.Namespace) -> bool:
    """Run `convert`; True when all went well."""
    # nothing at boot needs them
    from cryptpilot_boot.cli import keys
    from cryptpilot_boot.commands import convert as command
    from cryptpilot_boot.convert.plan import Unified
    from cryptpilot_boot.keys import given

    key, certificate = (path and absolute(path) for path in (arguments.uki_key, arguments.uki_cert))
    if bool(key) != bool(certificate) or (key and not arguments.uki):
        arguments.parser.error("--uki-key and --uki-cert go together, and with --uki")
    exposed = given.exposure(arguments.secret_file) if arguments.secret_file else ""
    if exposed:
        terminal.warn(exposed)
    options = command.Options(
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
        from cryptpilot_boot.commands import convert_device

        if arguments.source or arguments.uki:
            arguments.parser.error(f"--device takes no {'IN and OUT' if arguments.source else '--uki'}")
        with terminal.progress(lines=True):
            return convert_device.convert(config, arguments.device, options, say, keys.show)
    if not arguments.target:
        arguments.parser.error("IN and OUT are missing, or --device DISK")
    with terminal.progress(lines=True):
        return command.convert(config, absolute(arguments.source), absolute(arguments.target), options, say, keys.show)


def _tell(line: str) -> None:
    terminal.tell(terminal.plain(line))
