"""How programs talk: the tables of architecture.md have each file, which Python names in paths.py, and each line."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from buildlib.base import ROOT
from cryptpilot_boot import paths

PACKAGE = ROOT / "cryptpilot_boot"
PLACES = [str(paths.RUN), str(paths.BUNDLE)]
SCRIPTS = sorted(
    path
    for pattern in ("initrd_hooks/*", "systemd/*", "udev/*", "dracut/95cryptpilot/*", "packaging/cryptpilot-package")
    for path in ROOT.glob(pattern)
)
ASSIGNED = re.compile(r"^\s*(\w+)=(/\S+)$", re.MULTILINE)
NAME = r"/([\w.-]*\w)"


def in_scripts(place: str) -> set[str]:
    """Return the names directly below a directory that scripts use, by its path or by a variable that has it."""
    found = set()
    for script in SCRIPTS:
        text = script.read_text(encoding="utf-8")
        values = dict(ASSIGNED.findall(text))
        for name in values:
            text = re.sub(rf"\$(?:{name}\b|{{{name}}})", values[name], text)
        found |= set(re.findall(re.escape(place) + NAME, text))
    return found


def in_python(place: str) -> set[str]:
    """Return the names directly below a directory that paths.py has."""
    known = (value for value in vars(paths).values() if isinstance(value, Path))
    return {path.relative_to(place).parts[0] for path in known if Path(place) in path.parents}


def in_table(place: str) -> set[str]:
    """Return the names that the section of a directory describes, in the first column of its table."""
    text = (ROOT / "docs/dev/architecture.md").read_text(encoding="utf-8")
    section = text.partition(f"\n### {place}\n")[2].partition("\n### ")[0]
    cells = re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)
    return {name.partition("/")[0] for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


@pytest.mark.parametrize("place", PLACES)
def test_the_table_has_each_file(place: str) -> None:
    used = in_python(place) | in_scripts(place)
    assert len(used) > 5
    assert used - in_table(place) == set()


def test_the_table_has_no_other_file_of_run() -> None:
    place = str(paths.RUN)
    assert in_table(place) - in_python(place) - in_scripts(place) == set()


def written(module: Path) -> list[str]:
    """Return the paths below these directories that a module has as texts."""
    values = (node.value for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, ast.Constant))
    return [value for value in values if isinstance(value, str) and re.match(rf"({'|'.join(PLACES)})(/|$)", value)]


def test_a_path_is_written_in_one_module() -> None:
    others = [module for module in PACKAGE.rglob("*.py") if module.name != "paths.py"]
    assert {str(module): found for module in others if (found := written(module))} == {}


def test_the_table_has_each_kind_of_line_of_a_plan() -> None:
    printed = (PACKAGE / "commands/initrd.py").read_text(encoding="utf-8")
    kinds = set(re.findall(r'"(\w+) (?:\{|yes")', printed))
    assert {"config", "driver", "ask"} <= kinds
    page = (ROOT / "docs/dev/architecture.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| (`.+?) \|", page.partition("\n### Lines that a shell reads\n")[2], re.MULTILINE)
    assert {name for cell in cells for name in re.findall(r"`(\w+)`", cell)} == kinds
