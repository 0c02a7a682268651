"""Texts for people are plain technical English: words that had to be read twice stay out of them.

CONTRIBUTING.md, "Words". Looked at: every text in the product and its build, what the scripts print, the English
documentation, and docstrings and comments. A word is added here when it was removed from all of them.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from typing import TYPE_CHECKING

from buildlib.base import ROOT

if TYPE_CHECKING:
    from pathlib import Path

# By what is not used: what is.
WORDS = {
    r"anew": "again; rebuild, recreate",
    r"in vain": "without an answer; until it times out",
    r"nobody|whoever": "no one, a user who; better: the passive, or the program's name",
    r"no more(?! than)": "no longer; better: say what happens now",
    r"(?:is|are) none": "is not one; there is no",
    r"known so far": "supported",
    r"lies? on each other": "overlap",
    r"be rid of": "remove",
    r"as ever": "as usual",
    r"tell of": "report",
    r"goes to its end": "completes",
}
FOUND = re.compile(rf"\b(?:{'|'.join(WORDS)})\b", re.IGNORECASE)

CODE = [ROOT / "build.py", *sorted(ROOT.glob("buildlib/**/*.py")), *sorted(ROOT.glob("cryptpilot_boot/**/*.py"))]
PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    if "zh" not in path.parts and not path.name.endswith(".zh.md")
)


def texts(source: str) -> list[str]:
    """Return the texts in a module, but for docstrings and what stands alone as one."""
    tree = ast.parse(source)
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone
    ]


def prose(source: str) -> list[str]:
    """Return the docstrings of a module, what stands alone as one, and its comments."""
    alone = (node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Expr))
    comments = (
        token.string
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    )
    docstrings = (node.value for node in alone if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return [*docstrings, *comments]


def found(parts: list[str]) -> list[str]:
    return [match[0].lower() for part in parts for match in FOUND.finditer(part)]


def require_plain(parts: dict[Path, list[str]]) -> None:
    """Assert that none of the words is in the parts of a file."""
    words = {str(path.relative_to(ROOT)): words for path in parts if (words := found(parts[path]))}
    assert not words, f"rewrite: {words}; see WORDS in {__file__}"


def test_what_people_read_is_in_plain_words() -> None:
    said = {path: texts(path.read_text(encoding="utf-8")) for path in CODE}
    require_plain({**said, **{path: [path.read_text(encoding="utf-8")] for path in PAGES}})


def test_what_developers_read_is_in_plain_words() -> None:
    parts = {path: prose(path.read_text(encoding="utf-8")) for path in CODE}
    require_plain({path: [" ".join(part.split()) for part in parts[path]] for path in parts})


def test_the_words_are_found_in_docstrings_and_comments() -> None:
    source = '"""Nobody asks."""\nx = "made anew"  # in vain\n\n\ndef f():\n    """As ever."""\n    # goes to its end\n'
    assert prose(source) == ["Nobody asks.", "As ever.", "# in vain", "# goes to its end"]


def test_the_words_are_found_in_texts_and_not_in_docstrings() -> None:
    assert texts('"""Made anew."""\nx = f"made {y} anew"\n') == ["made ", " anew"]
    assert FOUND.findall("Nobody does so any more, in vain; no more than two are none") == [
        "Nobody",
        "in vain",
        "are none",
    ]
