"""The man pages of section 8, from the command line's table: cryptpilot(8), and one for each first word."""

from __future__ import annotations

from typing import TYPE_CHECKING

from buildlib.distribute.roff import escaped, page, paragraphs, references, tagged, title
from cryptpilot_boot.cli import manual, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from buildlib.distribute.commands import Command, Option, Program
    from cryptpilot_boot.cli.verb import Example

_VOLUME = "System administration"
_FILES = (
    ("/etc/cryptpilot/global.toml", "settings for all volumes; see cryptpilot.toml(5)"),
    ("/etc/cryptpilot/volumes/*.toml", "the volumes, a file each; see cryptpilot.toml(5)"),
    ("/etc/cryptpilot/identities/", "what each volume is bound to; written by init and bind"),
    ("/run/cryptpilot/events.jsonl", "what happened in this boot; see cryptpilot-boot(8)"),
)
_OTHERS = ("cryptsetup(8)", "dracut(8)", "systemd.generator(7)")
_FORMATS = ("cryptpilot.toml(5)", "cryptpilot.cmdline(7)")


def pages(program: Program, version: str) -> dict[str, str]:
    """Return the pages by their names."""
    words = dict.fromkeys(command.words[0] for command in program.shown)
    found = {program.name: _overview(program, version)}
    for word in words:
        commands = [command for command in program.shown if command.words[0] == word]
        found[f"{program.name}-{word}"] = _page(program, word, commands, version)
    return found


def page_of(program: Program, command: Command) -> str:
    """Return the name of the page that describes a command."""
    return program.name if command.hidden else f"{program.name}-{command.words[0]}"


def _overview(program: Program, version: str) -> str:
    """Return the page of the program, which names the others."""
    commands = {" ".join(command.words): command for command in program.commands}
    lines = [title(program.name, 8, version, _VOLUME), ".SH NAME"]
    lines.append(f"{program.name} \\- {escaped(program.description.rstrip('.'))}")
    lines += [".SH SYNOPSIS", f"\\fB{program.name}\\fR {escaped('[-h] [--version] [-c DIR] COMMAND ...')}"]
    lines += [".SH DESCRIPTION", *paragraphs(program.description), *paragraphs(manual.CONFIGURATION)]
    lines += [".SH OPTIONS", *(line for option in program.options for line in _option(option)), ".SH COMMANDS"]
    for section in table.SECTIONS:
        if section.hidden:
            continue
        lines.append(f'.SS "{section.title}"')
        for row in section.rows:
            reference = references(f"{page_of(program, commands[row.words])}(8)")
            lines += [".TP", f".B {escaped(row.words)}", f"{escaped(row.summary)}; see {reference}"]
    lines += [f".SH {section.title.upper()}" for section in table.SECTIONS if section.hidden]
    lines.append("You need not type these.")
    lines += [line for command in program.commands if command.hidden for line in _part(command)]
    lines.append(".SH EXIT STATUS")
    lines += [line for status, text in manual.EXIT_STATUS.items() for line in tagged(str(status), text)]
    lines += _examples(manual.EXAMPLES)
    lines += [".SH FILES", *(line for path, text in _FILES for line in tagged(path, text))]
    return _ended(lines, *_FORMATS, *_OTHERS)


def _page(program: Program, word: str, commands: Sequence[Command], version: str) -> str:
    """Return the page of a command, or of those that have their first word in common."""
    name = f"{program.name}-{word}"
    is_group = word in program.groups
    about = program.group_summary(word) if is_group else commands[0].summary
    lines = [title(name, 8, version, _VOLUME), ".SH NAME", f"{escaped(name)} \\- {escaped(about)}"]
    lines.append(".SH SYNOPSIS")
    for number, command in enumerate(commands):
        lines += [".br"] if number else []
        full = escaped(" ".join([program.name, *command.words]))
        lines.append(f"\\fB{full}\\fR {escaped(f'[-c DIR] {command.synopsis}'.strip())}")
    lines += [".SH DESCRIPTION", *paragraphs(program.groups[word] if is_group else commands[0].description)]
    if is_group:
        lines += [".SH COMMANDS", *(line for command in commands for line in _part(command))]
    else:
        lines += [".SH OPTIONS", *_options(commands[0])]
    directory = next(option for option in program.options if "--config-dir" in option.names)
    lines += [*([".SH OPTIONS"] if is_group else []), *_option(directory)]
    lines += _examples([example for command in commands for example in command.examples])
    lines += [".SH EXIT STATUS", f"As {references('cryptpilot(8)')} says."]
    return _ended(lines, "cryptpilot(8)", *_neighbours(program, commands[0]), *_FORMATS)


def _neighbours(program: Program, command: Command) -> list[str]:
    """Return the other pages that commands of the same purpose have."""
    rows = next(
        section.rows for section in table.SECTIONS if " ".join(command.words) in {row.words for row in section.rows}
    )
    words = dict.fromkeys(row.words.partition(" ")[0] for row in rows)
    return [f"{program.name}-{word}(8)" for word in words if word != command.words[0]]


def _ended(lines: Sequence[str], *pages: str) -> str:
    return page([*lines, ".SH SEE ALSO", references(*pages)])


def _part(command: Command) -> Iterator[str]:
    """Yield what is said of a command on a page of several."""
    yield f'.SS "{escaped(" ".join([*command.words, command.synopsis]).strip())}"'
    yield from paragraphs(command.description)
    yield from _options(command)


def _options(command: Command) -> Iterator[str]:
    for option in command.options:
        if "--help" not in option.names and (option.help or option.names):
            yield from _option(option)


def _option(option: Option) -> list[str]:
    names = ", ".join(f"{name} {option.value}".strip() for name in option.names) or option.value
    return tagged(names, option.help)


def _examples(examples: Sequence[Example]) -> list[str]:
    heading = [".SH EXAMPLES"] if examples else []
    return [*heading, *(line for example in examples for line in tagged(example.line, example.purpose))]
