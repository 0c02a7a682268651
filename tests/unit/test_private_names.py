"""Tests use what the product offers: none sets, patches, calls or imports a private name of it."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

TESTS = Path(__file__).resolve().parents[1]
PRODUCT = ("cryptpilot_boot", "buildlib")
PRIVATE = re.compile(r"(?<!\w)_[A-Za-z]\w*")
# Where a line begins with it, or an object keeps it.
DEFINED = re.compile(r"^[ \t]*(?:(?:def|class) |self\.)?(_[A-Za-z]\w*(?:, _[A-Za-z]\w*)*)", re.MULTILINE)
# In a program that a test runs, or in the dotted name of what it patches.
IN_A_STRING = re.compile(r"\b(?!self\b|cls\b)\w+\.(_[A-Za-z]\w*)")


def defined(texts: Collection[str]) -> set[str]:
    """Return the private names that modules, classes and objects have."""
    return {name for text in texts for names in DEFINED.findall(text) for name in names.split(", ")}


def is_product(module: str | None) -> bool:
    return (module or "").split(".")[0] in PRODUCT


def first(node: ast.AST) -> ast.AST:
    """Return what stands before the first dot."""
    while isinstance(node, (ast.Attribute, ast.Call)):
        node = node.value if isinstance(node, ast.Attribute) else node.func
    return node


def used(text: str, private: Collection[str], tests_own: Collection[str]) -> set[str]:
    """Return the private names of the product that a file uses.

    private: those that the product has. tests_own: those that the tests define. An object that is not imported, such as
    the result of a call, is taken for the product's if only the product has such a name.
    """
    if not set(PRIVATE.findall(text)) & set(private):
        return set()
    nodes = list(ast.walk(ast.parse(text)))
    imported = {
        (alias.asname or alias.name).split(".")[0]
        for node in nodes
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
        if is_product(node.module if isinstance(node, ast.ImportFrom) else alias.name)
    }

    def of_product(node: ast.AST) -> bool:
        root = first(node)
        return isinstance(root, ast.Name) and root.id in imported

    def names(node: ast.AST) -> Iterator[object]:
        if isinstance(node, ast.ImportFrom) and is_product(node.module):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Attribute):
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            if of_product(node) or not (own or node.attr in tests_own):
                yield node.attr
        elif isinstance(node, ast.Call):
            words = (one.value for one in node.args if isinstance(one, ast.Constant))
            of_it = any(map(of_product, node.args))
            yield from (word for word in words if of_it or word not in tests_own)
        elif isinstance(node, ast.ClassDef) and any(map(of_product, node.bases)):
            yield from (one.name for one in node.body if isinstance(one, ast.FunctionDef))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from IN_A_STRING.findall(node.value)

    return {name for node in nodes for name in names(node) if isinstance(name, str) and name in private}


def test_no_private_name_of_the_product_is_used() -> None:
    files = {str(path.relative_to(TESTS)): path.read_text(encoding="utf-8") for path in TESTS.rglob("*.py")}
    del files[str(Path(__file__).relative_to(TESTS))]
    private = defined([path.read_text("utf-8") for name in PRODUCT for path in (TESTS.parent / name).rglob("*.py")])
    tests_own = defined(files.values())
    assert len(files) > 200
    assert len(private) > 1000
    found = {name: used(text, private, tests_own) for name, text in files.items()}
    assert {name: names for name, names in found.items() if names} == {}


PLANTED = """
from cryptpilot_boot import log
from cryptpilot_boot.system import run as programs
"""


@pytest.mark.parametrize(
    "line",
    [
        "from cryptpilot_boot.log import _sinks",
        "log._sinks.clear()",
        "programs._sinks = False",
        'monkeypatch.setattr(log, "_sinks", [])',
        'monkeypatch.setattr(\n    log.Event,\n    "_sinks",\n    [],\n)',
        'mock.patch("cryptpilot_boot.log._sinks")',
        'getattr(log, "_sinks")',
        'monkeypatch.setattr(sys.modules[name], "_sinks", None)',
        "made()._sinks.clear()",
        "class Mine(log.Event):\n    def _sinks(self): ...",
        'run(f"""from cryptpilot_boot import log\\nlog._sinks = {some}""")',
    ],
)
def test_a_use_that_was_planted_is_found(line: str) -> None:
    assert used(PLANTED + line, {"_sinks"}, {"_own"}) == {"_sinks"}


@pytest.mark.parametrize(
    "line", ["_sinks = []", "self._sinks = []", "of_tests._own()", 'f(of_tests, "_own")', "log.__name__", "os._exit(0)"]
)
def test_what_is_the_tests_own_is_not_found(line: str) -> None:
    assert used(PLANTED + line, {"_sinks", "_own"}, {"_own"}) == set()


def test_where_a_private_name_is_defined() -> None:
    text = "_A = 1\n_B, _C = 2, 3\ndef _d():\n    global _A\nclass E:\n    def _f(self):\n        self._g: int = 1\n"
    assert defined([text, "x = _H\n__all__ = []\n"]) == {"_A", "_B", "_C", "_d", "_f", "_g"}
