"""From a command line to an exit status."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING, NoReturn

from cryptpilot_boot.cli import terminal
from cryptpilot_boot.cli.arguments import parse
from cryptpilot_boot.config import Boot, Config, load
from cryptpilot_boot.config.load import DEFAULT_DIRECTORY
from cryptpilot_boot.errors import ConfigError, CryptpilotError, Interrupted, describe_bug
from cryptpilot_boot.system import init, process, run, signals

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


_NO_CONFIGURATION = Config(DEFAULT_DIRECTORY, Boot(), ())

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2  # argparse's own, and a configuration that cannot be used
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as in shells


def run_and_exit() -> NoReturn:
    """Run the command line and end the process with its exit status.

    The process ends at once. The interpreter would wait for streams that are blocked or that a thread still writes to.
    It would then exit with its own status (120, or 134 by SIGABRT).
    """
    try:
        status: object = main()
    except SystemExit as end:  # argparse prints, and leaves the flush to the interpreter
        error = terminal.flush()
        status = end.code if error is None else _unheard() if isinstance(error, BrokenPipeError) else _unsaid(error)
    except KeyboardInterrupt:  # while `settle` waited for the console
        status = EXIT_INTERRUPTED
    run.give_up_questions()
    os._exit(status if isinstance(status, int) else EXIT_OK if status is None else EXIT_FAILED)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    terminal.require_streams()
    try:
        arguments = parse(argv)
    except CryptpilotError as error:
        terminal.explain(error)
        return EXIT_FAILED
    except BrokenPipeError:
        return _unheard()
    except OSError as error:  # argparse could not write --help
        return _unsaid(error)
    with terminal.unhurried() if arguments.boots else contextlib.nullcontext():
        return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    process.keep_memory_private()
    process.keep_files_private()
    heed_signals()
    try:
        # an initrd has one user; who may change its files was checked when it was made
        others = not init.in_initrd()
        config = load(arguments.config_dir, others=others) if arguments.needs_configuration else _NO_CONFIGURATION
        for problem in config.problems:
            terminal.explain(problem)
        if config.problems and arguments.needs_all_files:
            return EXIT_USAGE
        for warning in config.warnings:
            terminal.warn(warning)
        good = arguments.run(config, arguments)
        terminal.require_told()
        if not good:
            return EXIT_FAILED
    except (KeyboardInterrupt, Interrupted):
        signals.ignore()
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


def heed_signals() -> None:
    """Let the signals by which a person or systemd ends this process interrupt what it does from now on."""
    run.clear_interruption()  # of an earlier command in this process
    for number in signals.SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup(1) ignores SIGHUP, and that stays
            signal.signal(number, _interrupt)


def _unheard() -> int:
    """Return the status for a reader of standard output that has closed it."""
    terminal.say_no_more()
    return EXIT_FAILED


def _unsaid(error: OSError) -> int:
    """Report that standard output cannot be written, and return the status."""
    terminal.say_no_more()
    terminal.explain(
        CryptpilotError(
            f"standard output cannot be written: {error.strerror}",
            "the output is incomplete; redirect it somewhere with room",
        )
    )
    return EXIT_FAILED


def _interrupt(*_: object) -> NoReturn:
    """End the programs that may be ended. Programs that must finish do so, whatever signal follows but SIGKILL."""
    signals.ignore()
    run.interrupt()
    raise KeyboardInterrupt
