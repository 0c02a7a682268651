"""`cryptpilot image unify`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.cli import options, terminal
from cryptpilot_boot.cli.paths import absolute
from cryptpilot_boot.cli.verb import Verb

if TYPE_CHECKING:
    import argparse

    from cryptpilot_boot.config import Config

_DESCRIPTION = """\
Rebuilds the unified kernel image that this machine boots, after a change of its kernel or configuration. The new image
has the kernel, initrd and command line that GRUB would start by default. The initrd is checked first, and the old
image stays until the new one is complete. The next boot has other measurements: inform the verifier before."""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    options.signing(parser, "--key", "--cert")


def _run(config: Config, arguments: argparse.Namespace) -> bool:
    from cryptpilot_boot.commands import image_unify
    from cryptpilot_boot.convert.plan import Unified

    key, certificate = (path and absolute(path) for path in (arguments.key, arguments.cert))
    if bool(key) != bool(certificate):
        arguments.parser.error("--key and --cert go together")
    with terminal.progress():
        return image_unify.remake(config, Unified(key, certificate), terminal.say, terminal.explain)


VERB = Verb(_run, _add_arguments, _DESCRIPTION)
