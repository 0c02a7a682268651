"""What the agent would work out at each start, worked out once, when it is frozen.

Python writes the methods of a dataclass as text, and compiles that; and it compiles regular expressions. That was half
of what a start took. This runs in a process of its own, with the interpreter that is frozen, imports all that the agent
may import, and writes a module with two tables; buildlib/quick_start.py looks things up there.
"""

from __future__ import annotations

import builtins
import dataclasses
import importlib
import marshal
import re
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

from buildlib import bytecode
from buildlib.base import ROOT, BuildError

if TYPE_CHECKING:
    from collections.abc import Iterable

NAME = "quick_tables"
# Fewer, and the standard library has another way to do it.
_LEAST = 30


def modules() -> list[str]:
    """Return every module of the package but the entry point."""
    paths = (path.relative_to(ROOT).with_suffix("") for path in (ROOT / "cryptpilot_boot").rglob("*.py"))
    names = (".".join(path.parts) for path in paths if path.name != "__main__")
    return sorted(name.removesuffix(".__init__") for name in names)


def recorded(names: Iterable[str]) -> tuple[dict[str, types.CodeType], dict[Any, Any]]:
    """Import modules; return the code of their dataclasses by its text, and their regular expressions.

    These are what `_sre.compile` takes behind the pattern, by pattern and flags.
    """
    texts: set[str] = set()
    patterns: dict[Any, Any] = {}
    taken: list[Any] = []
    compiler: Any = importlib.import_module("re._compiler")
    compile_pattern, sre = compiler.compile, compiler._sre

    def execute(text: str, *rest: Any) -> None:
        texts.add(text)
        builtins.exec(text, *rest)  # noqa: S102

    def compile_sre(pattern: object, flags: int, code: list[int], groups: int, index: Any, names: Any) -> Any:
        taken[:] = [(int(flags), tuple(map(int, code)), groups, dict(index), tuple(names))]
        return sre.compile(pattern, flags, code, groups, index, names)

    def compile_noted(pattern: Any, flags: int = 0) -> Any:
        made = compile_pattern(pattern, flags)
        if type(pattern) in (str, bytes):
            patterns[pattern, int(flags)] = taken[0]
        return made

    dataclasses.exec = execute  # type: ignore[attr-defined]
    compiler._sre = types.SimpleNamespace(**{**vars(sre), "compile": compile_sre})
    compiler.compile = compile_noted
    # those of modules that this one has loaded itself
    earlier = list(re._cache)  # type: ignore[attr-defined]
    re.purge()
    for _, pattern, flags in earlier:
        re.compile(pattern, flags)
    for name in names:
        importlib.import_module(name)
    # as it would be compiled there: not with what this file has from the future
    code = {text: compile(text, "<string>", "exec", dont_inherit=True) for text in sorted(texts)}
    return code, dict(sorted(patterns.items(), key=repr))


def _write(place: Path) -> None:
    bytecode.make_stable()
    code, patterns = recorded(modules())
    if min(len(code), len(patterns)) < _LEAST:
        raise BuildError("dataclasses or regular expressions are compiled in another way", "see buildlib/precompute.py")
    place.write_text(f"import marshal\n\nCODE, PATTERNS = marshal.loads({marshal.dumps((code, patterns))!r})\n")


if __name__ == "__main__":
    _write(Path(sys.argv[1]))
