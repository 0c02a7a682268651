"""The command line: the only room that prints, asks and sets the exit status."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import cryptpilot_boot
from cryptpilot_boot.boot.plan import STAGES
from cryptpilot_boot.commands import boot_service, initrd, show, volumes
from cryptpilot_boot.config import load
from cryptpilot_boot.config.load import DEFAULT_DIRECTORY
from cryptpilot_boot.errors import ConfigError, CryptpilotError, Interrupted, describe_bug
from cryptpilot_boot.system import process

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptpilot_boot.config import Config

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2  # argparse's own, and a configuration that cannot be used
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it

_EPILOG = """\
exit status: 0 all done, 1 something failed, 2 the command line or the configuration is wrong, 130 interrupted.
show, open and close go on with the other volumes when a file of the configuration is wrong; init does nothing then.

Volumes are described in /etc/cryptpilot/volumes/*.toml, one file each; see cryptpilot's docs/configuration.md.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    arguments = _parser().parse_args(argv)
    process.keep_memory_private()
    try:
        config = load(arguments.config_dir)
        for problem in config.problems:
            _explain(problem)
        if config.problems and arguments.needs_all_files:
            return EXIT_USAGE
        for warning in config.warnings:
            _complain(f"warning: {warning}")
        status: int = arguments.run(config, arguments)
    except (KeyboardInterrupt, Interrupted):
        _complain("interrupted")
        return EXIT_INTERRUPTED
    except ConfigError as error:
        _explain(error)
        return EXIT_USAGE
    except CryptpilotError as error:
        _explain(error)
        return EXIT_FAILED
    except BrokenPipeError:
        # whoever read the output has seen enough; nothing more is said, at interpreter exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except Exception as bug:
        _explain(CryptpilotError(describe_bug(bug), "please report this, with the command you ran"))
        return EXIT_FAILED
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cryptpilot",
        description="Encrypt disks with LUKS2 and have them unlock themselves at boot.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"cryptpilot {cryptpilot_boot.__version__}")
    parser.add_argument(
        "-c",
        "--config-dir",
        type=Path,
        default=DEFAULT_DIRECTORY,
        metavar="DIR",
        help="read the configuration from DIR (default: %(default)s)",
    )
    parser.set_defaults(needs_all_files=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    one = commands.add_parser("show", help="show the volumes and where they stand")
    one.add_argument("volumes", nargs="*", metavar="VOLUME", help="only these (default: all)")
    one.add_argument("--json", action="store_true", help="print JSON for programs")
    one.set_defaults(run=_show)

    one = commands.add_parser("init", help="initialize a persistent volume; the data on its device is lost")
    one.add_argument("volumes", nargs="+", metavar="VOLUME")
    one.add_argument("-y", "--yes", action="store_true", help="do not ask for confirmation")
    # it destroys data: no file may hide a volume that has the device already
    one.set_defaults(run=_init, needs_all_files=True)

    one = commands.add_parser("open", help="open a volume as /dev/mapper/VOLUME")
    one.add_argument("volumes", nargs="+", metavar="VOLUME")
    one.set_defaults(run=_open)

    one = commands.add_parser("close", help="close a volume; what a temporary volume held is lost")
    one.add_argument("volumes", nargs="+", metavar="VOLUME")
    one.set_defaults(run=_close)

    one = commands.add_parser("boot-service", help="open the auto_open volumes of a boot stage (run by systemd)")
    one.add_argument("--stage", choices=STAGES, required=True, help="which stage of the boot this is")
    one.set_defaults(run=_boot_service)

    one = commands.add_parser("initrd", help="initrd images")
    actions = one.add_subparsers(required=True, metavar="ACTION")
    one = actions.add_parser("plan", help="print what the initrd must carry (for the dracut module)")
    one.set_defaults(run=_initrd_plan, needs_all_files=True)  # an image has to be complete
    return parser


# What each command does with its arguments; returns the exit status.


def _show(config: Config, arguments: argparse.Namespace) -> int:
    _print_lines(show.show(config, arguments.volumes, as_json=arguments.json))
    return _done(config)


def _init(config: Config, arguments: argparse.Namespace) -> int:
    volumes.init(config, arguments.volumes, _say, lambda question: arguments.yes or _confirm(question))
    return _done(config)


def _open(config: Config, arguments: argparse.Namespace) -> int:
    volumes.open_volumes(config, arguments.volumes, _say)
    return _done(config)


def _close(config: Config, arguments: argparse.Namespace) -> int:
    volumes.close(config, arguments.volumes, _say)
    return _done(config)


def _boot_service(config: Config, arguments: argparse.Namespace) -> int:
    return EXIT_OK if boot_service.boot_service(config, arguments.stage, _say) else EXIT_FAILED


def _initrd_plan(config: Config, _: argparse.Namespace) -> int:
    _print_lines(initrd.plan(config))
    return _done(config)


def _done(config: Config) -> int:
    """Return the status of a command that did all it could."""
    return EXIT_USAGE if config.problems else EXIT_OK


def _confirm(question: str) -> bool:
    if not sys.stdin.isatty():
        raise CryptpilotError("there is no terminal to ask for confirmation on", "give --yes if you are sure")
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _say(line: str) -> None:
    # one write: the lines of parallel volumes do not mix; flushed: the console shows it now, not at the end
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _print_lines(lines: Sequence[str]) -> None:
    for line in lines:
        _say(line)


def _complain(line: str) -> None:
    sys.stderr.write(f"cryptpilot: {line}\n")


def _explain(error: CryptpilotError) -> None:
    _complain(f"error: {error.what}")
    if error.hint:
        _complain(f"  {error.hint}")
