"""Man pages and completion say what `--help` and the documentation say."""

from __future__ import annotations

import argparse
import dataclasses
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from buildlib.base import ROOT
from buildlib.distribute import command_pages, commands, roff
from buildlib.distribute.pages import pages
from cryptpilot_boot.boot import parameters
from cryptpilot_boot.cli import table
from cryptpilot_boot.cli.arguments import whole
from cryptpilot_boot.config import schema, source
from cryptpilot_boot.providers.fields import TABLE, Key

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGES = pages()
PROGRAM = commands.read(whole())
COMPLETION = ROOT / "completions/cryptpilot"


@pytest.mark.parametrize("path", PAGES, ids=str)
def test_what_is_in_the_checkout_is_current(path: Path) -> None:
    assert (ROOT / path).read_text(encoding="utf-8") == PAGES[path], "run: make pages"


def leaves(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    below = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    for group in below:
        for name, one in group.choices.items():
            yield from leaves(one, (*words, name))
    if not below:
        shown = [action for action in parser._actions if action.help != argparse.SUPPRESS]
        yield words, [name for action in shown for name in action.option_strings]


LEAVES = dict(leaves(whole()))


@pytest.mark.needs("man")
@pytest.mark.parametrize("path", [path for path in PAGES if path.parts[0] == "man"], ids=str)
def test_a_page_is_proper_roff(path: Path) -> None:
    done = subprocess.run(
        ["man", "--warnings", "--local-file", ROOT / path], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == ""
    assert not re.search(r"(?m)^\.S[HS] .*\n\.PP$", PAGES[path]), "a heading begins a paragraph"
    assert done.stdout.count("\n") > (20 if "-" in path.name else 50)


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_the_page_has_each_command_with_each_of_its_options(words: tuple[str, ...]) -> None:
    command = next(command for command in PROGRAM.commands if command.words == words)
    page = command_pages.page_of(PROGRAM, command)
    text = (ROOT / f"man/{page}.8").read_text()
    full = roff.escaped(" ".join(words))
    if words[0] in PROGRAM.groups or command.hidden:
        sections = text.split("\n.S")[1:]
        section = next(part for part in sections if f".S{part}".startswith(f'.SS "{full}'))
    else:
        assert f"\n\\fBcryptpilot {full}\\fR" in text
        section = text.partition("\n.SH OPTIONS\n")[2].partition("\n.SH")[0]
    for name in LEAVES[words]:
        assert name in ("-h", "--help") or f".B {roff.escaped(name)}" in section or f", {roff.escaped(name)}" in section
    for example in command.examples:
        assert f"\n.B {roff.escaped(example.line)}\n{roff.escaped(example.purpose)}\n" in text


def test_the_page_of_the_program_names_all_others_and_each_command_once() -> None:
    text = (ROOT / "man/cryptpilot.8").read_text()
    named = set(re.findall(r"\\fB(cryptpilot[\w.\\-]*)\\fR\((\d)\)", text))
    others = {path for path in PAGES if path.parts[0] == "man"} - {Path("man/cryptpilot.8")}
    assert {Path(f"man/{name}.{section}".replace("\\", "")) for name, section in named} == others
    shown, _, hidden = text.partition("\n.SH RUN BY SYSTEMD AND DRACUT\n")
    for row in table.ROWS:
        tag = roff.escaped(row.words)
        assert shown.count(f"\n.B {tag}\n") == (row.words not in table.HIDDEN)
        assert len(re.findall(rf'\n\.SS "{re.escape(tag)}[" ]', hidden)) == (row.words in table.HIDDEN)


@pytest.mark.parametrize("path", [path for path in PAGES if path.parts[0] == "man"], ids=str)
def test_a_page_refers_to_pages_that_there_are(path: Path) -> None:
    """Of ours; and to none twice, nor to itself."""
    see_also = PAGES[path].partition("\n.SH SEE ALSO\n")[2].replace("\\fB", "").replace("\\fR", "").replace("\\-", "-")
    names = see_also.strip().split(", ")
    assert len(names) == len(set(names)) > 1
    for name, section in re.findall(r"(cryptpilot[\w.-]*)\((\d)\)", see_also):
        assert Path(f"man/{name}.{section}") in PAGES
        assert Path(f"man/{name}.{section}") != path


def test_the_page_of_kernel_parameters_has_each_of_them() -> None:
    text = PAGES[Path("man/cryptpilot.cmdline.7")]
    fields = {field.name for field in dataclasses.fields(parameters.Parameters)} - {"volumes", "complaints"}
    assert len(fields) >= 5
    for name in ("", *(fields - {"on"})):
        assert re.search(rf"\\fBrd\.cryptpilot{f'[.]{name}' if name else ''}=\\fR\\fI[A-Z]+\\fR", text), name
    assert "\\fBrd.emergency=\\fR\\fIACTION\\fR" in text


UNITS = [*ROOT.glob("systemd/*.service"), *ROOT.glob("initrd_hooks/*.service")]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_points_to_pages_that_there_are(unit: Path) -> None:
    [line] = re.findall(r"^Documentation=(.*)$", unit.read_text(), re.MULTILINE)
    for name, section in re.findall(r"man:([\w.-]+)\((\d)\)", line):
        assert Path(f"man/{name}.{section}") in PAGES
    assert "man:cryptpilot(8)" in line.split()


DOCUMENTED = "\n".join(path.read_text() for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")])
TYPED = re.compile(r"(?:`|^ *[#$] )(?:sudo )?cryptpilot (?:-c \S+ )?([a-z][^`|;&<>\n]*)", re.MULTILINE)


def test_the_documentation_has_each_command_that_people_type() -> None:
    for words in LEAVES:
        assert " ".join(words) in table.HIDDEN or re.search(rf"cryptpilot {' '.join(words)}\b", DOCUMENTED), words


def test_command_lines_in_the_documentation_have_commands_and_options_that_there_are() -> None:
    found = TYPED.findall(DOCUMENTED)
    assert len(found) > 100
    for typed in found:
        first, second = [*typed.split(), ""][:2]
        words = (first, second) if (first, second) in LEAVES else (first,)
        assert words in LEAVES or (first in PROGRAM.groups and not second), typed
        for option in re.findall(r"(?<= )--?[a-z][a-z-]*", typed.partition(" -- ")[0]):
            assert option in {*LEAVES.get(words, ()), "-c", "--config-dir", "--help"}, typed


def test_the_page_of_the_configuration_has_each_key() -> None:
    text = (ROOT / "man/cryptpilot.toml.5").read_text()
    tables = [value for name, value in vars(schema).items() if name.startswith("_") and isinstance(value, dict)]
    tables += source.KEYS.values()
    below = (key.keys for table in tables for key in table.values() if isinstance(key, Key))
    tables += [dict(keys) for keys in below if keys]
    keys = {key: kind for table in tables for key, kind in table.items() if isinstance(kind, Key)}
    assert len(keys) >= 20
    assert {"auth_mode", "client_key", "command", "sts_endpoint"} <= set(keys)
    for key in (name for name, kind in keys.items() if kind.kind is not TABLE):
        assert f"\\fB{roff.escaped(key)}\\fR" in text or f" {roff.escaped(key)}\\fR" in text, key


def complete(line: str, directory: Path) -> set[str]:
    """Return what bash offers for the last word of a command line, with volumes configured in `directory`."""
    script = f"""
source {COMPLETION}
line=$1
COMP_WORDS=($line)
[[ $line != *' ' ]] || COMP_WORDS+=('')
COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
_cryptpilot
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(
        ["bash", "-c", script, "bash", line], capture_output=True, text=True, check=True, cwd=directory, timeout=30
    )
    assert done.stderr == ""
    return set(done.stdout.split())


def with_volumes(place: Path) -> Path:
    """Fill a directory with what completion may offer: volumes, one of them malicious, and an image."""
    (place / "conf/volumes").mkdir(parents=True)
    (place / "conf/volumes/a.toml").write_text('volume = "data0" # x\ndev = "/dev/x"\n')
    (place / "conf/volumes/b.toml").write_text('dev = "/dev/y"\nvolume="data1"\n')
    (place / "conf/volumes/c.toml").write_text(f'volume = "$(touch {place}/made)"\n')
    (place / "image.img").touch()
    return place


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return with_volumes(tmp_path)


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_completion_offers_each_command_and_each_of_its_options(words: tuple[str, ...], directory: Path) -> None:
    assert set(LEAVES[words]) <= complete(f"cryptpilot {' '.join(words)} -", directory)
    for number, word in enumerate(words):
        offered = complete(" ".join(["cryptpilot", *words[:number], ""]), directory)
        if " ".join(words) not in table.HIDDEN:
            assert word in offered
        elif number == len(words) - 1:
            assert word not in offered, "no person types it"


def test_completion_offers_volumes_files_and_choices(directory: Path) -> None:
    assert complete("cryptpilot -c conf open d", directory) == {"data0", "data1"}
    assert complete("cryptpilot --config-dir conf init data0 data1", directory) == {"data1"}
    assert complete("cryptpilot boot-service --stage ", directory) == {"initrd", "system"}
    assert complete("cryptpilot initrd check im", directory) == {"image.img"}
    assert complete("cryptpilot -c co", directory) == {"conf"}
    assert complete("cryptpilot -c conf convert --volume ", directory) == {"data0", "data1"}
    assert complete("cryptpilot convert im", directory) == {"image.img"}
    assert not (directory / "made").exists(), "what a file says is not run"


def test_what_an_argument_needs_is_read_from_the_parser() -> None:
    parser = argparse.ArgumentParser(prog="p", description="D.")
    below = parser.add_subparsers()
    one = below.add_parser("x", help="do x")
    one.add_argument("things", nargs="+", metavar="THING")
    one.add_argument("--mode", choices=["a", "b"], help="how (default: %(default)s)", default="a")
    [command] = commands.read(parser).commands
    assert command.synopsis == "THING... [--mode a|b]"
    assert command.options[-1].help == "how (default: a)"
