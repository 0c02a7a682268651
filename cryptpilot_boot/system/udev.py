"""How devices get their names from udev: its database, and its rules read but not run.

See udev(7), "SYMLINK" and "SUBSTITUTIONS". The database has the links that were made, and not which rule made each;
`udevadm test` would say so, and runs the programs of the rules to find out.
"""

from __future__ import annotations

import dataclasses
import os
import re
import stat
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# Where rules are, below the root; a file goes before all of its name in the directories after it.
_DIRECTORIES = ("etc/udev/rules.d", "run/udev/rules.d", "usr/local/lib/udev/rules.d", "usr/lib/udev/rules.d",
                "lib/udev/rules.d")  # fmt: skip
_PROGRAM_DIRECTORIES = ("usr/lib/udev", "lib/udev")
_DATABASE = Path("/run/udev/data")
_TOKEN = re.compile(r'([A-Z_]+)(?:\{([^}]*)\})?\s*(==|!=|\+=|-=|:=|=)\s*[ei]*"((?:[^"\\]|\\.)*)"')
_SUBSTITUTION = re.compile(r"\$(?:env|attr|sysfs|result)\{([^}]*)\}|%[Escb]\{([^}]*)\}|\$\$|%%|\$[a-z]+|%[a-zA-Z]")
_UNSAFE = re.compile(r"[^A-Za-z0-9#+\-.:=@_/\\\x80-\U0010ffff]")  # udev puts "_" in place of these


@dataclasses.dataclass(frozen=True)
class Node:
    """What udev knows of a block device.

    kernel: its name in the kernel. properties: of the uevent and of the database. links: names below /dev.
    """

    kernel: str
    properties: Mapping[str, str]
    links: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Rule:
    """A line of a rules file. source: the file, as the machine sees it that has the rule.

    kernels: what the device's name in the kernel must match, all of these alternatives. links: names it gives.
    programs: what it runs to find out more.
    """

    source: Path
    kernels: tuple[str, ...]
    links: tuple[str, ...]
    programs: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Maker:
    """A rule that may have made a link. exactness: characters of the link that the rule cannot but have."""

    rule: Rule
    exactness: int


def node(path: str) -> Node | None:
    """Return what udev knows of the device `path` leads to; None where udev does not run, or there is no device."""
    try:
        status = Path(path).stat()
        if not stat.S_ISBLK(status.st_mode):
            return None
        number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
        lines = (_DATABASE / f"b{number}").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    uevent = Path("/sys/dev/block", number, "uevent")
    known = uevent.read_text(errors="replace").splitlines() if uevent.exists() else []
    known += [line[2:] for line in lines if line.startswith("E:")]
    links = tuple(line[2:] for line in lines if line.startswith("S:"))
    return Node(Path(os.path.realpath(path)).name, dict(line.partition("=")[::2] for line in known), links)


def rules(root: Path) -> list[Rule]:
    """Read the rules of a system, or of an unpacked image, below `root`."""
    files: dict[str, Path] = {}
    for directory in _DIRECTORIES:
        for path in (root / directory).glob("*.rules"):
            files.setdefault(path.name, path)
    return [rule for name in sorted(files) for rule in _read(files[name], root)]


def _read(path: Path, root: Path) -> Iterator[Rule]:
    source = Path("/") / path.relative_to(root)
    # in an image a link may lead to where it leads on the machine; a rule may be masked by a link to /dev/null
    if not path.is_file():
        return
    text = path.read_text(encoding="utf-8", errors="replace").replace("\\\n", "")
    for line in text.splitlines():
        if rule := parse(line, source):
            yield rule


def parse(line: str, source: Path) -> Rule | None:
    """Read a line of a rules file; None unless it may give a block device a name, or helps a line that does."""
    if line.lstrip().startswith("#"):
        return None
    tokens = _TOKEN.findall(line)

    def values(key: str, *operators: str) -> tuple[str, ...]:
        return tuple(value for name, _, operator, value in tokens if name == key and operator in operators)

    if any("block" not in value.split("|") for value in values("SUBSYSTEM", "==")):
        return None
    links = " ".join(values("SYMLINK", "+=", "=", ":=")).split()
    commands = [value for name, kind, _, value in tokens if name == "PROGRAM" or (name, kind) == ("IMPORT", "program")]
    programs = [command.split()[0] for command in commands if command.strip()]
    if not links and not programs:
        return None
    return Rule(source, values("KERNEL", "=="), tuple(links), tuple(programs))


def makers(link: str, of: Node, known: Sequence[Rule]) -> list[Maker]:
    """Return the rules that may have given a device a name, those that fit best: as exact as each other."""
    found = [
        Maker(rule, exactness)
        for rule in known
        if _applies(rule, of)
        for pattern in rule.links
        if (exactness := _exactness(pattern, link, of)) is not None
    ]
    best = max((maker.exactness for maker in found), default=0)
    return [maker for maker in found if maker.exactness == best]


def programs(source: Path, of: Node, known: Sequence[Rule]) -> list[str]:
    """Return the programs that the rules of a file run for a device, each by its path below a root."""
    called = [name for rule in known if rule.source == source and _applies(rule, of) for name in rule.programs]
    return list(dict.fromkeys(name for name in called if not re.search(r"[$%]", name)))


def has_program(root: Path, name: str) -> bool:
    """Tell whether a system, or an unpacked image, has a program that a rule runs."""
    places = [name.lstrip("/")] if name.startswith("/") else [f"{place}/{name}" for place in _PROGRAM_DIRECTORIES]
    return any(os.path.lexists(root / place) for place in places)


def _applies(rule: Rule, of: Node) -> bool:
    return all(any(fnmatchcase(of.kernel, one) for one in kernels.split("|")) for kernels in rule.kernels)


def _exactness(pattern: str, link: str, of: Node) -> int | None:
    """Return how many characters of a link a pattern of SYMLINK has for certain; None if it cannot have made it."""
    expression, exact, place = "", 0, 0
    for found in [*_SUBSTITUTION.finditer(pattern), None]:
        literal = pattern[place : found.start() if found else None]
        value = _value(found, of) if found else ""
        expression += re.escape(literal) + (".+" if value is None else re.escape(value))
        exact += len(literal) + len(value or "")
        place = found.end() if found else place
    return exact if re.fullmatch(expression, link) else None


def _value(substitution: re.Match[str], of: Node) -> str | None:
    """Return what stands for a substitution; None if that is known only while the rules run."""
    text = substitution[0]
    name = substitution[1] or substitution[2] or ""
    if text in ("$$", "%%"):
        return text[0]
    if text.startswith(("$env", "%E")):
        # those with a dot are not kept in the database
        return None if name.startswith(".") else _UNSAFE.sub("_", of.properties.get(name, ""))
    if text in ("$kernel", "%k"):
        return of.kernel
    if text in ("$number", "%n"):
        return of.kernel[len(of.kernel.rstrip("0123456789")) :]
    return None
