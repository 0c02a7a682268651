"""What `--help` shows: commands by purpose, and examples that can be typed."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import pytest

from buildlib.base import ROOT
from cryptpilot_boot.cli import arguments, manual, table

if TYPE_CHECKING:
    from cryptpilot_boot.cli.verb import Example

CONFIGURATION = (ROOT / "docs/configuration.md").read_text()
WIDTH = 80  # columns of a console
EXAMPLES = {row.words: table.load(row).examples for row in table.ROWS}
HELPED_BY_EXAMPLES = {
    *("init", "open", "adopt", "convert", "rotate", "enroll", "recovery-key", "header backup", "header restore"),
    *("initrd check", "initrd rebuild", "boot report", "image measure", "config check"),
}


def printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    with pytest.raises(SystemExit, match=r"^0$"):
        arguments.parse([*words, "--help"])
    return capsys.readouterr().out


def test_help_has_the_commands_by_purpose(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed(capsys, monkeypatch)
    shown = [section for section in table.SECTIONS if not section.hidden]
    for section in shown:
        block = text.partition(f"\n{section.title.lower()}:\n")[2].partition("\n\n")[0]
        assert [re.split(r" {2,}", line.strip()) for line in block.splitlines()] == [
            [row.words, row.summary] for row in section.rows
        ]
    for words in table.HIDDEN:
        assert not re.search(rf"\b{words}\b", text)
    for line in text.splitlines():
        assert len(line) < WIDTH
    assert text.endswith(manual.of_examples(manual.EXAMPLES))


def test_what_systemd_and_dracut_run_is_hidden_and_explains_itself(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {"boot-service", "generator", "initrd plan", "initrd record"} == table.HIDDEN
    group = printed(capsys, monkeypatch, "initrd")
    assert "rebuild" in group
    assert not re.search(r"\b(?:plan|record)\b", group)
    for row in table.ROWS:
        if row.words in table.HIDDEN:
            assert row.summary[1:] in " ".join(printed(capsys, monkeypatch, *row.words.split()).split())


def all_examples() -> list[tuple[str | None, Example]]:
    own = [(words, example) for words, examples in EXAMPLES.items() for example in examples]
    return [*own, *((None, example) for example in manual.EXAMPLES)]


@pytest.mark.parametrize(("words", "example"), all_examples())
def test_an_example_is_a_command_line_of_its_command(words: str | None, example: Example) -> None:
    program, *line = shlex.split(example.line)
    found = arguments.parse(line)
    assert (program, found.command) == ("cryptpilot", words or found.command)
    assert re.fullmatch(r"[A-Z].*\.", example.purpose)
    assert max(len(f"  {example.line}"), len(f"      {example.purpose}")) <= WIDTH


def test_commands_that_need_them_have_up_to_three_examples(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {words for words, examples in EXAMPLES.items() if examples} == HELPED_BY_EXAMPLES
    for words in HELPED_BY_EXAMPLES:
        assert len(EXAMPLES[words]) <= 3
        assert printed(capsys, monkeypatch, *words.split()).endswith(manual.of_examples(EXAMPLES[words]))


def test_it_is_said_which_commands_need_all_files() -> None:
    [row] = re.findall(r"^\| (.*) \| Do nothing and exit with status 2", CONFIGURATION, re.MULTILINE)
    named = set(re.findall(r"`([^`]+)`", row))
    assert named - {"open --overwrite"} == {row.words for row in table.ROWS if row.needs_all_files}
    text = " ".join(manual.CONFIGURATION.split())
    for words in named - table.HIDDEN:
        assert words in text


def test_no_option_of_another_program_is_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    """The examples of `initrd rebuild` have options of dracut."""
    assert "--add" in manual.of_examples(EXAMPLES["initrd rebuild"])
    with pytest.raises(SystemExit, match=r"^2$"):
        arguments.parse(["initrd", "rebuild", "--ad"])
    assert "did you mean --add?" not in capsys.readouterr().err
