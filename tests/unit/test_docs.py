"""The documentation is held to the product: links lead somewhere, and errors that it quotes are given."""

from __future__ import annotations

import ast
import hashlib
import re
from functools import cached_property
from pathlib import Path

import pytest

from tests.printed import BLOCK, Printed, commands, is_printed

CHECKOUT = Path(__file__).resolve().parents[2]
PAGES = sorted([*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/**/*.md")])
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
CELL = re.compile(r"^\| (.*?) \|", re.MULTILINE)
QUOTED = re.compile(r"`([^`]+)`")
GAP = "\0"


class Page:
    """A page of the documentation."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = path.read_text(encoding="utf-8")

    @cached_property
    def links(self) -> list[str]:
        """Return what the page links to within the documentation."""
        found = LINK.findall(re.sub(r"`[^`\n]*`", "", FENCED.sub("", self.text)))
        return [one for one in found if not re.match(r"[a-z]+:", one)]

    @cached_property
    def anchors(self) -> set[str]:
        """Return what its headings are called in links, as the common renderers of Markdown have it."""
        headings = re.findall(r"^#+ (.+)$", FENCED.sub("", self.text), re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

    @cached_property
    def cells(self) -> list[list[str]]:
        """Return what the first cells of its tables quote."""
        return [QUOTED.findall(cell) for cell in CELL.findall(self.text)]


def is_broken(path: Path, link: str) -> bool:
    """Tell whether a link of a page leads nowhere."""
    name, _, anchor = link.partition("#")
    target = (path.parent / name).resolve() if name else path
    return not target.exists() or bool(anchor and anchor not in Page(target).anchors)


def test_links_lead_somewhere() -> None:
    assert {(str(path), link) for path in PAGES for link in Page(path).links if is_broken(path, link)} == set()


TO_BE_WRITTEN = {"cryptpilot_boot/providers/fw_cfg.py"}  # by who follows docs/dev/new-source.md


def code() -> tuple[frozenset[str], frozenset[str]]:
    """Return the paths of all Python files, with the ends by which a page may name them, and the names of all tests."""
    tops = ("*.py", "buildlib/**/*.py", "cryptpilot_boot/**/*.py", "tests/**/*.py")
    files = [path.relative_to(CHECKOUT) for top in tops for path in CHECKOUT.glob(top)]
    ends = {"/".join(path.parts[number:]) for path in files for number in range(len(path.parts))}
    texts = [(CHECKOUT / path).read_text(encoding="utf-8") for path in files if path.name.startswith("test_")]
    return frozenset(ends), frozenset(re.findall(r"^def (test_\w+)", "\n".join(texts), re.MULTILINE))


def test_code_and_tests_that_are_named_are_there() -> None:
    files, tests = code()
    there = files | tests | TO_BE_WRITTEN
    named = {(str(path), name) for path in PAGES for name in QUOTED.findall(FENCED.sub("", Page(path).text))}
    assert {one for one in named if re.fullmatch(r"[a-z0-9_/]+\.py|test_\w+", one[1]) and one[1] not in there} == set()


def sentences() -> list[str]:
    """Return every text of the product's, with GAP for what is put into it when it is said."""
    found = []
    for path in sorted(CHECKOUT.glob("cryptpilot_boot/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [one.value if isinstance(one, ast.Constant) else GAP for one in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def is_said(quoted: str, said: list[str]) -> bool:
    """Tell whether the product has a sentence that a page quotes, with "..." for what is put into it."""
    parts = [re.escape(part) for part in re.split(r" ?\.\.\. ?", quoted.replace("\\|", "|")) if part]
    gap = r"[^\n]*"
    return any(re.search(gap.join(parts), text) for text in said)


TROUBLE = (CHECKOUT / "docs/troubleshooting.md").read_text(encoding="utf-8")
ERRORS = [
    quoted
    for section in ("What `convert` says", "The key does not come")
    for cell in CELL.findall(TROUBLE.partition(f"\n## {section}\n")[2].partition("\n## ")[0])
    for quoted in QUOTED.findall(cell)
]


def test_there_are_errors_to_look_for() -> None:
    assert len(ERRORS) > 60
    assert len(set(ERRORS)) == len(ERRORS)


def test_an_error_that_is_quoted_is_one_of_the_products() -> None:
    said = sentences()
    assert {quoted for quoted in ERRORS if not is_said(quoted, said)} == set()


def test_no_message_removes_a_key_slot_by_its_number() -> None:
    """docs/security.md, "What holds": luksRemoveKey asks for the key; luksKillSlot is in no message."""
    assert [text for text in sentences() if "luksKillSlot" in text] == ["luksKillSlot"]
    assert any("luksRemoveKey" in text for text in sentences())


def test_what_is_quoted_is_found_across_what_is_put_into_it_and_nothing_else_is() -> None:
    said = [f"the file {GAP} is {GAP}, not vfat", "is swap space"]
    assert is_said("the file ... is ..., not vfat", said)
    assert is_said("... is swap space", said)
    assert not is_said("the file ... was ..., not vfat", said)
    assert not is_said("is ..., not ext4", said)


def test_command_lines_are_read_with_their_continuations_and_what_they_print() -> None:
    page = """
<!-- tried: here -->
```
# cat > file << 'END'
one
END
# two \\
    more
printed 1.5 s
$ three
```
```
# not marked
```
<!-- tried: there -->
```
# four
```
"""
    assert commands(page, "here") == [
        Printed("cat > file << 'END'\none\nEND"),
        Printed("two \\\n    more", ("printed 1.5 s",)),
        Printed("three"),
    ]
    assert commands(page, "there") == [Printed("four")]
    assert is_printed("printed 1.5 s", "before\nprinted 22 s\n")
    assert not is_printed("printed 1.5 s", "printed some")


TRANSLATED = sorted([*CHECKOUT.glob("*.zh.md"), *CHECKOUT.glob("docs/zh/*.md")])
SOURCE = re.compile(r"<!-- translated from (\S+), sha256 ([0-9a-f]{64}) -->\n")


def source(path: Path) -> tuple[Path, str]:
    """Return the English page that a translation is of, and the digest that it had then."""
    found = SOURCE.match(path.read_text(encoding="utf-8"))
    assert found, f"{path}: its first line does not say what it is translated from"
    return CHECKOUT / found[1], found[2]


def test_there_are_translations() -> None:
    assert CHECKOUT / "docs/zh/tutorial-root.md" in TRANSLATED


@pytest.mark.parametrize("path", TRANSLATED, ids=lambda path: path.name)
def test_a_translation_is_of_the_page_as_it_is(path: Path) -> None:
    english, digest = source(path)
    now = hashlib.sha256(english.read_bytes()).hexdigest()
    assert digest == now, f"{english} has changed: translate the change into {path}, then put {now} into its first line"


@pytest.mark.parametrize("path", TRANSLATED, ids=lambda path: path.name)
def test_a_translation_has_the_same_commands_errors_and_sections(path: Path) -> None:
    page, english = Page(path), Page(source(path)[0])
    assert FENCED.findall(page.text) == FENCED.findall(english.text)
    assert page.cells == english.cells
    assert page.text.count("\n## ") == english.text.count("\n## ")
    assert BLOCK.findall(page.text) == BLOCK.findall(english.text)
