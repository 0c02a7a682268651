"""Which commands a shell script runs: a reading of sh and bash that does for ours, and fails where it does not."""

from __future__ import annotations

import re
from dataclasses import dataclass

_KEEP = {"if", "then", "else", "elif", "do", "while", "until", "!", "{", "time"}
"""Words behind which a command begins."""
_ENDS = {"fi", "done", "esac", "}"}
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*(\[[^]]*\])?\+?=")
_NAME = re.compile(r"[A-Za-z_][\w-]*")


@dataclass(frozen=True)
class Command:
    """A command as it is written: words with their quotes, expansions included."""

    words: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.words[0]

    @property
    def options(self) -> list[str]:
        """The words that are options, up to "--"; of --name=value, the name."""
        until = self.words.index("--") if "--" in self.words else len(self.words)
        return [word.partition("=")[0] for word in self.words[1:until] if re.match(r"--?[A-Za-z]", word)]


def functions(text: str) -> set[str]:
    """Return the names of the functions that a script defines."""
    return set(re.findall(r"^\s*([\w-]+)\(\)", text, re.MULTILINE))


def commands(text: str) -> list[Command]:
    """Return the commands of a script, those in substitutions and quotes included."""
    return _Reader(text).script()


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text.replace("\\\n", " ")
        self._at = 0
        self._found: list[Command] = []
        self._words: list[str] = []
        self._cases: list[bool] = []  # for each "case" that is open, whether a pattern comes next

    def script(self) -> list[Command]:
        self._until("")
        return self._found

    def _peek(self, count: int = 1) -> str:
        return self._text[self._at : self._at + count]

    def _until(self, end: str) -> None:
        """Read commands up to `end`, which is ")" or nothing."""
        outer, self._words = self._words, []
        cases, self._cases = self._cases, []
        while True:
            char = self._peek()
            if not char:
                if end:
                    raise AssertionError(f"a {end} is missing")
                break
            if self._cases and self._cases[-1] and char not in " \t\n#":
                if self._text.startswith("esac", self._at):
                    self._cases[-1] = False
                else:
                    self._at = self._pattern_end()
                    self._cases[-1] = False
                    continue
            if char == end:
                break
            if char == "#":
                self._at = (self._text + "\n").index("\n", self._at)
            elif char in " \t":
                self._at += 1
            elif self._peek(2) == ";;":
                self._at += 2
                self._end()
                self._cases[-1] = True
            elif char in "\n;":
                self._at += 1
                self._end()
            elif self._peek(2) in ("&&", "||"):
                self._at += 2
                self._end()
            elif match := re.compile(r"\d*(>>|>&|<&|>|<<<|<)|&>").match(self._text, self._at):
                self._redirect(match.end())
            elif char in "|&":
                self._at += 1
                self._end()
            elif char == "(":
                self._at += 1
                if self._words and self._text[self._at] == ")":  # a function is defined
                    self._at += 1
                    self._words = []
                    continue
                self._until(")")
                self._at += 1
            else:
                self._word()
        self._end()
        self._words, self._cases = outer, cases

    def _pattern_end(self) -> int:
        """Return where the commands of a case begin; no pattern has a ")" in quotes or a substitution."""
        return self._text.index(")", self._at) + 1

    def _redirect(self, at: int) -> None:
        self._at = at
        while self._peek() in (" ", "\t"):
            self._at += 1
        if self._peek(2) == "<(":
            self._read_word()
        elif re.match(r"&?\d|&-|-", self._text[self._at :]):
            self._at = re.compile(r"[&\d-]+").match(self._text, self._at).end()  # type: ignore[union-attr]
        else:
            self._read_word()

    def _word(self) -> None:
        word = self._read_word()
        if not self._words:
            if word == "[[":
                self._skip_condition()
                return
            if word in _KEEP or word in _ENDS:
                if word == "esac":
                    self._cases.pop()
                return
            if _ASSIGNMENT.match(word):
                if word.endswith("=") and self._peek() == "(":
                    self._at += 1
                    self._list()
                return
        self._words.append(word)
        if self._words[0] == "case" and word == "in" and len(self._words) == 3:
            self._cases.append(True)
            self._words = []
        elif self._words[0] in ("local", "export") and _ASSIGNMENT.match(word) and self._peek() == "(":
            self._at += 1
            self._list()

    def _list(self) -> None:
        """Read the words of an array."""
        while self._peek() != ")":
            if self._peek() in " \t\n":
                self._at += 1
            else:
                self._read_word()
        self._at += 1

    def _skip_condition(self) -> None:
        """Read up to the "]]": there are words with substitutions, and operators."""
        while self._peek(2) != "]]":
            if not self._peek():
                raise AssertionError("a ]] is missing")
            if self._peek() in " \t\n()<>|&;":
                self._at += 1
            else:
                self._read_word()
        self._at += 2

    def _end(self) -> None:
        if self._words and self._words[0] not in ("for", "fi", "done"):
            self._found.append(Command(tuple(self._words)))
        self._words = []

    def _read_word(self) -> str:
        start = self._at
        while self._peek() and self._peek() not in " \t\n;&|()<>":
            char = self._peek()
            if char == "\\":
                self._at += 2
            elif char == "'":
                self._at = self._text.index("'", self._at + 1) + 1
            elif char == '"':
                self._quoted()
            elif char == "$" or char == "`":
                self._expansion()
            else:
                self._at += 1
        if self._at == start:
            if self._peek(2) in ("<(", ">("):
                self._at += 2
                self._until(")")
                self._at += 1
            else:
                raise AssertionError(f"not understood: {self._text[start : start + 40]!r}")
        return self._text[start : self._at]

    def _quoted(self) -> None:
        self._at += 1
        while self._peek() != '"':
            if not self._peek():
                raise AssertionError("a quote is not closed")
            if self._peek() == "\\":
                self._at += 2
            elif self._peek() == "$":
                self._expansion()
            else:
                self._at += 1
        self._at += 1

    def _expansion(self) -> None:
        if self._peek(3) == "$((":
            self._at = self._text.index("))", self._at) + 2
        elif self._peek(2) == "$(":
            self._at += 2
            self._until(")")
            self._at += 1
        elif self._peek(2) == "${":
            depth = 0
            while True:
                depth += {"{": 1, "}": -1}.get(self._peek(), 0)
                self._at += 1
                if depth == 0 and self._text[self._at - 1] == "}":
                    return
        else:
            self._at += 1
