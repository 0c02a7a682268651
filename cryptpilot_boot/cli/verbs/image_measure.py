"""`cryptpilot image measure`."""

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
Computes the measurements of a machine that boots a disk image by UEFI and a unified kernel image, for a verifier:
digests of boot loader, kernel, initrd and command line, and PCR 4, 5, 9, 11 and 12 once the kernel has started. The
image is only read. If a value cannot be computed exactly, it is refused, with the reason and exit status 1. Values of
TDX's RTMR[1] and RTMR[2] follow from the same events; they have not been compared with a real machine."""
_EXAMPLES = (Example("cryptpilot image measure encrypted.qcow2 --json", "Write the measurements for a verifier."),)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", type=Path, metavar="IMAGE", help="the image of a whole disk: raw, qcow2 or VHD")
    options.json(parser)
    parser.add_argument(
        "--secure-boot", action="store_true", help="compute for firmware that has Secure Boot on: PCR 4 differs"
    )


def _run(_: Config, arguments: argparse.Namespace) -> bool:
    from cryptpilot_boot.commands import image_measure

    with terminal.progress():
        return image_measure.measure(
            absolute(arguments.image), secure_boot=arguments.secure_boot, as_json=arguments.json, say=terminal.say
        )


VERB = Verb(_run, _add_arguments, _DESCRIPTION, examples=_EXAMPLES)
