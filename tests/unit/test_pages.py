"""Man pages and completion say what `--help` and the documentation say."""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from buildlib.base import ROOT
from buildlib.distribute import commands, roff
from buildlib.distribute.pages import pages
from cryptpilot_boot.cli import table
from cryptpilot_boot.cli.arguments import whole
from cryptpilot_boot.config import schema, source
from cryptpilot_boot.providers.fields import TABLE, Key

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGES = pages()
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
@pytest.mark.parametrize("path", [path for path in PAGES if path.suffix in (".8", ".5")], ids=str)
def test_a_page_is_proper_roff(path: Path) -> None:
    done = subprocess.run(
        ["man", "--warnings", "--local-file", ROOT / path], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == ""
    assert done.stdout.count("\n") > 50


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_the_page_has_each_command_with_each_of_its_options(words: tuple[str, ...]) -> None:
    text = (ROOT / "man/cryptpilot.8").read_text()
    head = f'.SS "{roff.escaped(" ".join(words))}'
    section = next(part for part in text.split("\n.S")[1:] if f".S{part}".startswith(head))
    for name in LEAVES[words]:
        assert name in ("-h", "--help") or roff.escaped(name) in section


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


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "conf/volumes").mkdir(parents=True)
    (tmp_path / "conf/volumes/a.toml").write_text('volume = "data0" # x\ndev = "/dev/x"\n')
    (tmp_path / "conf/volumes/b.toml").write_text('dev = "/dev/y"\nvolume="data1"\n')
    (tmp_path / "conf/volumes/c.toml").write_text(f'volume = "$(touch {tmp_path}/made)"\n')
    (tmp_path / "image.img").touch()
    return tmp_path


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
