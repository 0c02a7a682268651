"""What may stand on a command line, and what `--help` says of it: the parser of the rows of `table`."""

from __future__ import annotations

import argparse
import os
import re
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import cryptpilot_boot
from cryptpilot_boot.cli import options, table
from cryptpilot_boot.config.load import DEFAULT_DIRECTORY
from cryptpilot_boot.errors import nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cryptpilot_boot.cli.verb import Example


class _Parser(argparse.ArgumentParser):
    """Suggests what may have been meant, and takes no option that is not written in full: some destroy data.

    row: the command that it parses. The command's file is loaded when the command is on the command line. is_whole:
    whether it is the parser of the program, whose `--help` shows all commands. examples: of the command.
    """

    def __init__(self, row: table.Row | None = None, *, is_whole: bool = False, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)
        self._row = row
        self._is_whole = is_whole
        self.examples: tuple[Example, ...] = ()

    def complete(self) -> None:
        """Take what the command's file says of it."""
        row, self._row = self._row, None
        if not row:
            return
        verb = table.load(row)
        self.description = verb.description or f"{row.summary[:1].upper()}{row.summary[1:]}."
        self.usage, self.examples = verb.usage, verb.examples
        verb.add_arguments(self)
        self.set_defaults(
            command=row.words,
            run=verb.run,
            check=verb.check,
            needs_all_files=row.needs_all_files,
            boots=row.boots,
            needs_configuration=row.needs_configuration,
        )

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does, with the arguments of the command."""
        self.complete()
        return super().parse_known_args(args, namespace)

    def format_help(self) -> str:
        """Return what `--help` prints."""
        from cryptpilot_boot.cli import manual

        return super().format_help() + (manual.of_program() if self._is_whole else manual.of_examples(self.examples))

    def _print_message(self, message: str, file: Any = None) -> None:
        # newer versions of argparse ignore an output that cannot be written
        (file or sys.stderr).write(message)

    def error(self, message: str) -> NoReturn:
        """Print the usage and the error, without hidden commands; exit with status 2."""
        wrong = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if wrong:
            group = self.prog.split()[1:]
            known = re.findall(r"[\w-]+", wrong[2])
            listed = [word for word in known if " ".join([*group, word]) not in table.HIDDEN]
            message = message.replace(wrong[2], ", ".join(listed)) + _did_you_mean(wrong[1], listed)
        super().error(message)


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    near = nearest(word, known)
    return f"; did you mean {near}?" if near else ""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return what a command line asks for. Exits with status 2, and says why, if it is invalid.

    The result has the command's words in `command`, its parser in `parser`, its function in `run`, the facts of its
    `table.Row`, and its arguments.
    """
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
        # by the command's own parser, which knows what it takes; examples may have options of another program
        known = re.findall(r"--[\w-]+", argparse.ArgumentParser.format_help(arguments.parser))
        arguments.parser.error(f"unrecognized argument: {unknown[0]}{_did_you_mean(unknown[0], known)}")
    if arguments.check:
        arguments.check(arguments)
    return arguments


def whole() -> argparse.ArgumentParser:
    """Return the parser with the arguments of every command: for man pages and completion."""
    return _parser(whole=True)


def _parser(*, whole: bool = False) -> argparse.ArgumentParser:
    top = _Parser(
        prog="cryptpilot",
        usage="%(prog)s [-h] [--version] [-c DIR] COMMAND ...",
        description="Encrypts disks with LUKS2 and has them unlock themselves at boot.",
        is_whole=True,
    )
    top.add_argument("--version", action="version", version=f"cryptpilot {cryptpilot_boot.__version__}")
    options.config_dir(top, default=DEFAULT_DIRECTORY)
    # all of them are below the options, by purpose
    commands = top.add_subparsers(required=True, metavar="COMMAND", prog="cryptpilot", help=argparse.SUPPRESS)
    groups: dict[str, argparse._SubParsersAction[_Parser]] = {}
    for row in table.ROWS:
        first, _, second = row.words.partition(" ")
        if second and first not in groups:
            groups[first] = _add_group(commands, first)
        shown: dict[str, Any] = {} if row.words in table.HIDDEN else {"help": row.summary}
        one = (groups[first] if second else commands).add_parser(second or first, row=row, **shown)
        one.set_defaults(parser=one)
        options.config_dir(one)
        if whole:
            one.complete()
    return top


def _add_group(commands: argparse._SubParsersAction[_Parser], name: str) -> argparse._SubParsersAction[_Parser]:
    parser = commands.add_parser(name, description=table.GROUPS[name])
    options.config_dir(parser)
    return parser.add_subparsers(required=True, metavar="ACTION", prog=parser.prog)
