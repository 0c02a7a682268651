"""From a command line to an exit status."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from cryptpilot_boot.cli import images, moving, terminal
from cryptpilot_boot.cli.arguments import parse
from cryptpilot_boot.cli.paths import absolute
from cryptpilot_boot.config import Boot, Config, load
from cryptpilot_boot.config.load import DEFAULT_DIRECTORY
from cryptpilot_boot.errors import ConfigError, CryptpilotError, Interrupted, describe_bug
from cryptpilot_boot.system import init, process, run

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


_NO_CONFIGURATION = Config(DEFAULT_DIRECTORY, Boot(), ())

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2  # argparse's own, and a configuration that cannot be used
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def run_and_exit() -> NoReturn:
    """Run the command line and end the process with its exit status.

    At once: the interpreter would wait for streams that take nothing any more, or that a thread is still writing to,
    and end with a status of its own (120, or 134 by SIGABRT).
    """
    try:
        status: object = main()
    except SystemExit as end:  # argparse, which leaves what it printed to the interpreter
        error = terminal.flush()
        status = end.code if error is None else _unheard() if isinstance(error, BrokenPipeError) else _unsaid(error)
    except KeyboardInterrupt:  # while the console was given its moment
        status = EXIT_INTERRUPTED
    run.give_up_questions()
    os._exit(status if isinstance(status, int) else EXIT_OK if status is None else EXIT_FAILED)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    terminal.require_streams()
    try:
        arguments = parse(argv)
    except BrokenPipeError:
        return _unheard()
    except OSError as error:  # of --help: argparse writes that
        return _unsaid(error)
    with terminal.unhurried() if arguments.boots else contextlib.nullcontext():
        return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    process.keep_memory_private()
    process.keep_files_private()
    for number in run.SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup(1) has it
            signal.signal(number, _interrupt)
    try:
        # in an initrd there is nobody else, and who can change its files was looked at when it was made
        others = not init.in_initrd()
        config = load(arguments.config_dir, others=others) if arguments.needs_configuration else _NO_CONFIGURATION
        for problem in config.problems:
            terminal.explain(problem)
        if config.problems and arguments.needs_all_files:
            return EXIT_USAGE
        for warning in config.warnings:
            terminal.warn(warning)
        good = _COMMANDS[arguments.command](config, arguments)
        terminal.require_told()
        if not good:
            return EXIT_FAILED
    except (KeyboardInterrupt, Interrupted):
        _ignore_signals()
        terminal.complain("interrupted")
        return EXIT_INTERRUPTED
    except ConfigError as error:
        terminal.explain(error)
        return EXIT_USAGE
    except CryptpilotError as error:
        terminal.explain(error)
        return EXIT_FAILED
    except BrokenPipeError:
        return _unheard()
    except terminal.CannotSay as error:
        return _unsaid(error)
    except Exception as bug:
        terminal.explain(CryptpilotError(describe_bug(bug), "please report this, with the command you ran"))
        return EXIT_FAILED
    return EXIT_USAGE if config.problems and not arguments.boots else EXIT_OK


def _unheard() -> int:
    """End where the reader of standard output has seen enough."""
    terminal.say_no_more()
    return EXIT_FAILED


def _unsaid(error: OSError) -> int:
    """End where standard output takes nothing."""
    terminal.say_no_more()
    terminal.explain(
        CryptpilotError(
            f"standard output cannot be written: {error.strerror}",
            "the output is incomplete; redirect it somewhere with room",
        )
    )
    return EXIT_FAILED


def _interrupt(*_: object) -> NoReturn:
    """End what may be ended; what has to be finished is finished whatever else comes, but for SIGKILL."""
    _ignore_signals()
    run.interrupt()
    raise KeyboardInterrupt


def _ignore_signals() -> None:
    for number in run.SIGNALS:
        signal.signal(number, signal.SIG_IGN)


# What each command does with its arguments; True when all went well. Each loads what it needs: to start is most of what
# opening a volume takes.


def _show(config: Config, arguments: argparse.Namespace) -> bool:
    from cryptpilot_boot.commands import show

    paint = terminal.paint if terminal.colored() else None
    with terminal.progress():
        lines = show.show(config, arguments.volumes, as_json=arguments.json, paint=paint)
    _print_lines(lines)
    _warn_of_stale_images(config)
    return True


def _init(config: Config, arguments: argparse.Namespace) -> bool:
    from cryptpilot_boot.commands import volumes
    from cryptpilot_boot.volume import Force

    force = Force(arguments.force_reinit, frozenset(arguments.overwrite))
    confirm = (lambda _: True) if arguments.yes else terminal.confirm
    with terminal.progress():
        good = volumes.init(config, arguments.volumes, terminal.report, confirm, force, terminal.warn)
    _warn_of_stale_images(load(arguments.config_dir))  # what the volumes are bound to is in images too
    return good


def _adopt(config: Config, arguments: argparse.Namespace) -> bool:
    good = moving.adopt(config, arguments)
    _warn_of_stale_images(load(arguments.config_dir))
    return good


def _open(config: Config, arguments: argparse.Namespace) -> bool:
    with terminal.progress():
        names = moving.cleared(config, arguments) if arguments.overwrite else arguments.volumes
        if arguments.recovery_key:
            from cryptpilot_boot.cli import keys
            from cryptpilot_boot.commands import recovery_key

            return recovery_key.open_by_key(
                config, arguments.volumes[0], terminal.report, keys.ask, check_fs=arguments.check_fs
            )
        from cryptpilot_boot.commands import volumes

        good = not names or volumes.open_volumes(config, names, terminal.report, check_fs=arguments.check_fs)
        return good and len(names) == len(arguments.volumes)


def _close(config: Config, arguments: argparse.Namespace) -> bool:
    from cryptpilot_boot.commands import volumes

    with terminal.progress():
        return volumes.close(config, arguments.volumes, terminal.report, terminal.warn)


def _recovery_key(config: Config, arguments: argparse.Namespace) -> bool:
    from cryptpilot_boot.cli import keys

    return keys.enroll(config, arguments)


def _header_backup(config: Config, arguments: argparse.Namespace) -> bool:
    from cryptpilot_boot.commands import header

    with terminal.progress():
        return header.backup(config, arguments.volume, absolute(arguments.file), terminal.report)


def _header_restore(config: Config, arguments: argparse.Namespace) -> bool:
    from cryptpilot_boot.cli import keys
    from cryptpilot_boot.commands import header

    with terminal.progress():
        return header.restore(
            config,
            arguments.volume,
            absolute(arguments.file),
            terminal.report,
            (lambda _: True) if arguments.yes else terminal.confirm,
            overwrite=frozenset(arguments.overwrite),
            force=arguments.force,
            ask_key=keys.ask if arguments.recovery_key else None,
        )


def _config_check(config: Config, arguments: argparse.Namespace) -> bool:
    from cryptpilot_boot.commands import check

    with terminal.progress():
        good = check.check(
            config,
            keep_checking=arguments.keep_checking,
            skip_passphrase=arguments.skip_check_passphrase,
            say=terminal.say,
        )
    _warn_of_stale_images(config)
    _warn_of_late_volumes(config)
    return good


def _boot_service(config: Config, arguments: argparse.Namespace) -> bool:
    from cryptpilot_boot.commands import boot_service

    return boot_service.boot_service(config, arguments.stage, terminal.say, terminal.settle, arguments.volumes)


def _generator(config: Config, arguments: argparse.Namespace) -> bool:
    from cryptpilot_boot.commands import generator

    generator.generate(config, arguments.normal, arguments.early)
    return True


def _boot_report(_: Config, arguments: argparse.Namespace) -> bool:
    from cryptpilot_boot.commands import boot_report

    whole = boot_report.make(arguments.log)
    if arguments.json:
        lines = boot_report.as_json(whole)
    elif arguments.svg:
        lines = boot_report.as_picture(whole, None if arguments.svg == "-" else Path(arguments.svg))
    else:
        lines = boot_report.as_table(whole, terminal.width())
    _print_lines(lines)
    return True


def _initrd_plan(config: Config, _: argparse.Namespace) -> bool:
    from cryptpilot_boot.commands import initrd

    _print_lines(initrd.plan(config))
    return True


def _enroll(config: Config, arguments: argparse.Namespace) -> bool:
    from cryptpilot_boot.cli import keys
    from cryptpilot_boot.commands import enroll

    with terminal.progress():
        return enroll.enroll(
            config,
            arguments.volume,
            arguments.source,
            terminal.report,
            keys.ask if arguments.recovery_key else None,
        )


def _rotate(config: Config, arguments: argparse.Namespace) -> bool:
    from cryptpilot_boot.commands import rotate

    with terminal.progress():
        return rotate.rotate(config, arguments.volumes, terminal.report)


def _bind(config: Config, arguments: argparse.Namespace) -> bool:
    from cryptpilot_boot.commands import bind

    with terminal.progress():
        good = bind.bind(config, arguments.volumes, terminal.report)
    _warn_of_stale_images(load(arguments.config_dir))
    return good


def _resize(config: Config, arguments: argparse.Namespace) -> bool:
    from cryptpilot_boot.commands import resize

    with terminal.progress():
        return resize.resize(config, arguments.volumes, terminal.report)


def _initrd_record(config: Config, _: argparse.Namespace) -> bool:
    from cryptpilot_boot.commands import initrd

    _print_lines(initrd.record(config))
    return True


def _initrd_status(config: Config, arguments: argparse.Namespace) -> bool:
    from cryptpilot_boot.commands import image_status

    with terminal.progress():
        return image_status.status(config, as_json=arguments.json, say=terminal.say)


def _initrd_check(config: Config, arguments: argparse.Namespace) -> bool:
    from cryptpilot_boot.commands import image_check

    with terminal.progress():
        return image_check.check(config, arguments.image, arguments.kernel, terminal.say, terminal.explain)


def _initrd_rebuild(config: Config, arguments: argparse.Namespace) -> bool:
    from cryptpilot_boot.commands import image_rebuild

    with terminal.progress():
        choice = image_rebuild.Choice(arguments.kernel, arguments.all, arguments.if_included)
        return image_rebuild.rebuild(config, choice, arguments.options, terminal.tell, terminal.explain)


def _warn_of_stale_images(config: Config) -> None:
    from cryptpilot_boot.commands import image_check

    for warning in image_check.stale(config):
        terminal.warn(warning)


def _warn_of_late_volumes(config: Config) -> None:
    from cryptpilot_boot.commands import image_check

    for warning in image_check.late_warnings(config):
        terminal.warn(warning)


_COMMANDS = {
    "show": _show,
    "init": _init,
    "adopt": _adopt,
    "convert": images.convert,
    "image measure": images.measure,
    "image unify": images.unify,
    "open": _open,
    "close": _close,
    "rotate": _rotate,
    "bind": _bind,
    "resize": _resize,
    "recovery-key": _recovery_key,
    "enroll": _enroll,
    "header backup": _header_backup,
    "header restore": _header_restore,
    "config check": _config_check,
    "boot-service": _boot_service,
    "generator": _generator,
    "boot report": _boot_report,
    "initrd plan": _initrd_plan,
    "initrd record": _initrd_record,
    "initrd status": _initrd_status,
    "initrd check": _initrd_check,
    "initrd rebuild": _initrd_rebuild,
}


def _print_lines(lines: Sequence[str]) -> None:
    for line in lines:
        terminal.say(line)
