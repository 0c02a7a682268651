"""The same code gives the same bytes, whatever else the process holds."""

from __future__ import annotations

import subprocess
import sys

import pytest

from buildlib.base import ROOT

SOURCE = """
def f(a, b=("x", 70000)):
    return a in {"]", "out of the ordinary"} and [b"?!", a, *b]
"""
# What makes a process one that writes other bytes: a string of one character that somebody interned, and constants
# that somebody holds.
INTERNED = "sys.intern(chr(93))"
HELD = "held = [[one.co_consts, *one.co_consts] for one in code.co_consts if hasattr(one, 'co_consts')]"


def written(stable: bool, *, before: str = "", after: str = "", function: str = "dumps") -> str:
    """Return what a new process writes of SOURCE, in hexadecimal digits."""
    lines = [
        "import io, marshal, sys",
        before,
        "from buildlib import bytecode",
        "bytecode.make_stable()" if stable else "",
        f"code = compile({SOURCE!r}, 'name.py', 'exec')",
        after,
        "file = io.BytesIO()",
        "marshal.dump(code, file)",
        "print((marshal.dumps(code) if sys.argv[1] == 'dumps' else file.getvalue()).hex())",
    ]
    command = [sys.executable, "-c", "\n".join(lines), function]
    return subprocess.run(
        command, cwd=ROOT, env={"PYTHONHASHSEED": "0"}, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize("function", ["dump", "dumps"])
def test_what_else_the_process_holds_does_not_matter(function: str) -> None:
    plain = written(True, function=function)
    assert written(True, function=function, before=INTERNED) == plain
    assert written(True, function=function, after=HELD) == plain


def test_it_would_matter_otherwise() -> None:
    """Python might do so itself one day; then this room is not needed any more."""
    assert written(False, after=HELD) != written(False)


def test_what_was_written_is_the_code() -> None:
    import marshal

    namespace: dict[str, object] = {}
    exec(marshal.loads(bytes.fromhex(written(True))), namespace)  # noqa: S102, S302 - written above
    function = namespace["f"]
    assert callable(function)
    assert function("]") == [b"?!", "]", "x", 70000]
