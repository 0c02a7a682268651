"""What zsh offers on a command line: the same as bash, and as the parser takes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from buildlib.base import ROOT
from cryptpilot_boot.cli import table
from tests.unit import zsh
from tests.unit.test_pages import LEAVES, complete, with_volumes

if TYPE_CHECKING:
    from pathlib import Path

TEXT = (ROOT / "completions/_cryptpilot").read_text()
VALUES = (
    "cryptpilot -c conf open d",
    "cryptpilot open -c 'conf' d",
    "cryptpilot --config-dir conf init data0 data1",
    "cryptpilot -c conf header backup d",
    "cryptpilot -c conf header backup data0 im",
    "cryptpilot -c conf convert --volume ",
    "cryptpilot convert im",
    "cryptpilot boot-service --stage ",
    "cryptpilot initrd check im",
    "cryptpilot -c co",
    "cryptpilot ",
    "cryptpilot header ",
    "cryptpilot initrd ",
    "cryptpilot initrd rebuild -- --",
)


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_the_function_has_each_command_with_each_of_its_options(words: tuple[str, ...]) -> None:
    body = TEXT.partition(f"\n_cryptpilot_{'_'.join(words)}() {{\n")[2].partition("\n}\n")[0]
    for name in LEAVES[words]:
        assert re.search(rf"(?m)^ +'[^\[]*(?<![\w-]){name}\[", body), name
    for number, word in enumerate(words):
        chooser = TEXT.partition(f"\n_cryptpilot_{'_'.join(words[:number]) or 'word'}() {{\n")[2].partition("\n}\n")[0]
        assert f"\n                {word}) _cryptpilot_{'_'.join(words[: number + 1])} ;;\n" in chooser
        is_hidden = " ".join(words) in table.HIDDEN and number == len(words) - 1
        assert bool(re.search(rf"(?m)^        '{word}:", chooser)) == (not is_hidden)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_volumes(tmp_path_factory.mktemp("zsh"))


@pytest.fixture(scope="module")
def offered(place: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    lines = [*VALUES, *(f"cryptpilot {' '.join(words)} -" for words in LEAVES)]
    return zsh.offered(ROOT / "completions", lines, place, tmp_path_factory.mktemp("home"))


@pytest.mark.needs("zsh")
def test_each_option_is_offered(offered: dict[str, set[str]]) -> None:
    for words, names in LEAVES.items():
        assert {*names, "-c", "--config-dir"} == offered[f"cryptpilot {' '.join(words)} -"]


@pytest.mark.needs("zsh")
def test_volumes_files_and_choices_are_offered(offered: dict[str, set[str]], place: Path) -> None:
    assert offered["cryptpilot -c conf open d"] == {"data0", "data1"}
    assert offered["cryptpilot open -c 'conf' d"] == {"data0", "data1"}
    assert offered["cryptpilot --config-dir conf init data0 data1"] == {"data1"}
    assert offered["cryptpilot -c conf header backup d"] == {"data0", "data1"}
    assert offered["cryptpilot -c conf header backup data0 im"] == {"image.img"}
    assert offered["cryptpilot -c conf convert --volume "] == {"data0", "data1"}
    assert offered["cryptpilot convert im"] == {"image.img"}
    assert offered["cryptpilot boot-service --stage "] == {"initrd", "system"}
    assert offered["cryptpilot initrd check im"] == {"image.img"}
    assert offered["cryptpilot -c co"] == {"conf/"}
    assert offered["cryptpilot initrd rebuild -- --"] == {"--"}, "which is for dracut"
    assert not (place / "made").exists(), "what a file says is not run"


@pytest.mark.needs("zsh")
@pytest.mark.parametrize("line", ["cryptpilot ", "cryptpilot header ", "cryptpilot initrd "])
def test_the_words_are_those_of_bash(offered: dict[str, set[str]], place: Path, line: str) -> None:
    assert offered[line] == {word for word in complete(line, place) if not word.startswith("-")}
