"""The packages: imports point down docs/dev/architecture.md's picture, and the outside is touched in one of them."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cryptpilot_boot.cli import table

PACKAGE = Path(__file__).resolve().parents[2] / "cryptpilot_boot"
ROOMS = [
    *("cli", "commands", "convert", "measure", "report", "images", "boot", "units"),
    *("volume", "keys", "config", "providers", "system"),
]
BASE = {"errors", "passphrase", "log", "steps", "tasks", "names", "paths", "text"}
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


@dataclass(frozen=True)
class Uses:
    """What a module uses and defines, wherever in it.

    imports: the full names of modules and of names in them. names: of variables and functions. attributes: those of a
    name, as "sys.exit". classes: names of those that it defines.
    """

    imports: frozenset[str]
    names: frozenset[str]
    attributes: frozenset[str]
    classes: frozenset[str]


@cache
def uses(module: Path) -> Uses:
    """Read a module, once for all tests."""
    imports, names, attributes, classes = set(), set(), set(), set()
    for node in ast.walk(ast.parse((PACKAGE / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imports |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imports |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            attributes.add(f"{node.value.id}.{node.attr}")
        elif isinstance(node, ast.ClassDef):
            classes.add(node.name)
    return Uses(frozenset(imports), frozenset(names), frozenset(attributes), frozenset(classes))


def room(name: str) -> str:
    return name.split(".")[0]


def upward(module: Path) -> set[str]:
    """Return what a module imports from a package that is not below its own."""
    here = room(module.parts[0].replace(".py", ""))
    ours = {name.split(".", 1)[1] for name in uses(module).imports if name.startswith("cryptpilot_boot.")}
    below = set(ROOMS[ROOMS.index(here) :]) if here in ROOMS else set(ROOMS) if here.startswith("__") else set()
    allowed = below | BASE | {"__version__"}
    return {name for name in ours if room(name) not in allowed}


def test_imports_point_down() -> None:
    assert {str(module): found for module in MODULES if (found := upward(module))} == {}


def test_programs_are_run_in_one_place() -> None:
    outside = {"subprocess", "os.system", "os.popen", "pty"}
    found = {str(module) for module in MODULES if {room(name) for name in uses(module).imports} & outside}
    assert found <= {"system/run.py"}


def talk(module: Path) -> set[str]:
    """Return by which names a module prints or exits."""
    found = uses(module)
    return {"print", "input"} & found.names | {"sys.exit", "sys.stdout", "sys.stderr", "os._exit"} & found.attributes


def test_only_the_command_line_prints_and_exits() -> None:
    others = [module for module in MODULES if module.parts[0] not in ("cli", "__main__.py")]
    assert {str(module): found for module in others if (found := talk(module))} == {}


def test_a_class_has_a_name_of_its_own() -> None:
    """So that a reader knows what it is without the imports, and a search finds nothing else."""
    defined = Counter(name for module in MODULES for name in uses(module).classes)
    assert {name for name, modules in defined.items() if modules > 1} == set()


def test_no_command_loads_tls_before_it_asks_for_a_key() -> None:
    # A start costs less; and the check of an image says what else it lacks where the agent in it cannot load its TLS.
    commands = [f"cryptpilot_boot.commands.{path.stem}" for path in (PACKAGE / "commands").glob("[!_]*.py")]
    assert "cryptpilot_boot.commands.initrd" in commands
    loaded = f"import sys, cryptpilot_boot.cli.main, {', '.join(commands)}; print(*sys.modules)"
    names = subprocess.run([sys.executable, "-c", loaded], check=True, capture_output=True, text=True).stdout.split()
    assert set(commands) <= set(names)
    assert not {"ssl", "_ssl", "cryptography", "http.client"} & set(names)


def test_a_command_loads_itself_and_no_other() -> None:
    """To start is most of what opening a volume takes."""
    names = _loaded("cryptpilot_boot.cli.main")
    assert not [name for name in names if name.startswith("cryptpilot_boot.commands")]
    names = _loaded("cryptpilot_boot.cli.main", "cryptpilot_boot.commands.volumes")
    assert "cryptpilot_boot.volume.opening" in names
    unneeded = {"cryptpilot_boot.boot.stage", "cryptpilot_boot.report.eventlog", "cryptpilot_boot.commands.show"}
    # what a wait, a failure or a terminal takes
    assert not {*unneeded, "socket", "random", "difflib", "traceback", "shutil"} & names


def test_a_command_line_loads_the_file_of_its_command_and_no_other() -> None:
    parse = 'cryptpilot_boot.cli.arguments.parse(["header", "backup", "a", "b"])'
    names = _loaded("cryptpilot_boot.cli.main", then=parse)
    verbs = "cryptpilot_boot.cli.verbs"
    assert {name for name in names if name.startswith(f"{verbs}.")} == {f"{verbs}.header_backup"}
    assert "cryptpilot_boot.cli.manual" not in names, "which is for --help"
    assert not [name for name in names if name.startswith("cryptpilot_boot.commands")]


def test_each_command_is_a_row_and_a_file() -> None:
    files = {path.stem for path in (PACKAGE / "cli/verbs").glob("[!_]*.py")}
    assert files == {re.sub("[ -]", "_", row.words) for row in table.ROWS}
    assert set(table.GROUPS) == {row.words.split()[0] for row in table.ROWS if " " in row.words}


def _loaded(*modules: str, then: str = "None") -> set[str]:
    code = f"import sys, {', '.join(modules)}; {then}; print(*sys.modules)"
    # without what the environment's packages load into every interpreter
    isolated = f"import sys; sys.path[:] = {sys.path!r}; {code}"
    found = subprocess.run([sys.executable, "-S", "-c", isolated], check=True, capture_output=True, text=True)
    return set(found.stdout.split())
