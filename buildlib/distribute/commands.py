"""The command line as a table, from the parser that gives `--help`: what man page and completion are made from."""

from __future__ import annotations

import argparse
import dataclasses
import re
from typing import TYPE_CHECKING

from cryptpilot_boot.cli import table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptpilot_boot.cli.verb import Example


@dataclasses.dataclass(frozen=True)
class Option:
    """An option or an argument. names: none for an argument. value: what follows, "" for nothing.

    many: whether the option may be given again.
    """

    names: tuple[str, ...]
    value: str
    help: str
    repeated: str = ""
    choices: tuple[str, ...] = ()
    required: bool = False
    many: bool = False

    @property
    def usage(self) -> str:
        """Return how it stands in a synopsis."""
        if self.names:
            words = " ".join([self.names[-1], *filter(None, [self.value])])
            return words if self.required else f"[{words}]"
        return {"+": f"{self.value}...", "*": f"[{self.value}...]", "?": f"[{self.value}]"}.get(
            self.repeated, self.value
        )


@dataclasses.dataclass(frozen=True)
class Command:
    """A command with its words, such as ("initrd", "status"). synopsis: what may follow them.

    hidden: whether people never type it.
    """

    words: tuple[str, ...]
    summary: str
    description: str
    options: tuple[Option, ...]
    synopsis: str
    examples: tuple[Example, ...]
    hidden: bool


@dataclasses.dataclass(frozen=True)
class Program:
    """The whole command line. groups: what is said of a command that has commands below it, by its word."""

    name: str
    description: str
    options: tuple[Option, ...]
    commands: tuple[Command, ...]
    groups: dict[str, str]

    @property
    def shown(self) -> Iterator[Command]:
        """The commands that people type."""
        return (command for command in self.commands if not command.hidden)

    def group_summary(self, word: str) -> str:
        """Return the first sentence that is said of a group, as a line in a list."""
        sentence = self.groups[word].partition(". ")[0].strip().rstrip(".")
        return f"{sentence[:1].lower()}{sentence[1:]}"


def read(parser: argparse.ArgumentParser) -> Program:
    """Return what a parser takes."""
    groups = {name: below.description or "" for name, below in _below(parser) if any(True for _ in _below(below))}
    commands = {command.words: command for command in _commands(parser, ())}
    ordered = (commands.pop(words) for row in table.ROWS if (words := tuple(row.words.split())) in commands)
    return Program(
        parser.prog,
        parser.description or "",
        tuple(_options(parser)),
        (*ordered, *commands.values()),
        groups,
    )


def _below(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def _commands(parser: argparse.ArgumentParser, words: tuple[str, ...]) -> Iterator[Command]:
    for name, below in _below(parser):
        if any(True for _ in _below(below)):
            yield from _commands(below, (*words, name))
            continue
        options = tuple(_options(below))
        synopsis = " ".join(one.usage for one in options if "--help" not in one.names)
        if below.usage:
            synopsis = re.sub(r"^%\(prog\)s( \[-h\])? ?", "", below.usage)
        full = " ".join([*words, name])
        summary = next((row.summary for row in table.ROWS if row.words == full), "")
        examples = getattr(below, "examples", ())
        yield Command(
            (*words, name), summary, below.description or "", options, synopsis, examples, full in table.HIDDEN
        )


def _options(parser: argparse.ArgumentParser) -> Iterator[Option]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) or action.help == argparse.SUPPRESS:
            continue
        choices = tuple(map(str, action.choices or ()))
        takes_value = action.nargs != 0
        value = action.metavar or ("|".join(choices) if choices else action.dest.upper())
        yield Option(
            tuple(action.option_strings),
            str(value) if takes_value else "",
            (action.help or "") % {"default": action.default, "prog": parser.prog},
            str(action.nargs or ""),
            choices,
            action.required,
            isinstance(action, argparse._AppendAction),
        )
