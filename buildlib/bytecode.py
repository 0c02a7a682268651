"""Writing code objects so that the same code gives the same bytes.

Two bits of what marshal writes do not come from the code but from what else the process holds: whether an object is
marked as one that may be referred to again (marshal asks for its reference count), and whether a string is marked as
interned (the strings of one character, or of none, are one object each for the whole process, so the first that
interns one decides for all). A variable of the environment is enough to change them.
"""

from __future__ import annotations

import marshal
import sys
from types import CodeType
from typing import Any

_LATIN_1 = 256
# What of a code object marshal writes, under the names that some Python from 3.9 on has for it.
_PARTS = (
    "co_cellvars",
    "co_code",
    "co_consts",
    "co_exceptiontable",
    "co_filename",
    "co_freevars",
    "co_linetable" if hasattr(CodeType, "co_linetable") else "co_lnotab",
    "co_name",
    "co_names",
    "co_qualname",
    "co_varnames",
)


def make_stable() -> None:
    """From now on have this process's marshal.dump and marshal.dumps write the same bytes for the same code."""
    _kept.extend(sys.intern(text) for text in ["", *map(chr, range(_LATIN_1))])
    marshal.dump = _holding(marshal.dump)
    marshal.dumps = _holding(marshal.dumps)


_kept: list[str] = []


def _holding(write: Any) -> Any:
    """Wrap a function of marshal: while it runs every object within its value is held once more."""

    def holding(value: Any, *rest: Any) -> Any:
        held: list[Any] = []
        _hold(value, held)
        return write(value, *rest)

    return holding


def _hold(value: Any, held: list[Any]) -> None:
    held.append(value)
    if isinstance(value, CodeType):
        for name in _PARTS:
            _hold(getattr(value, name, None), held)
    elif isinstance(value, (tuple, list, frozenset)):
        for item in value:
            _hold(item, held)
