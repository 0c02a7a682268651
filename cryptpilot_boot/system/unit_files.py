"""The files of a systemd service that an initrd image gets: see `_install_unit` in module-setup.sh."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot.system.programs import located

if TYPE_CHECKING:
    from collections.abc import Iterator

DIRECTORIES = tuple(
    map(
        Path, ("/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
    )
)
"""Directories of units, the first one that has a unit counts; systemd.unit(5)."""
# A line that ends in a backslash continues in the next line that is no comment; systemd.syntax(7).
_CONTINUED = re.compile(r"\\\n(?:[ \t]*[#;].*\n)*")
_COMMAND = re.compile(r"^Exec(?:Start|StartPre|Condition)[ \t]*=[ \t]*[-@:+!]*(.*)$", re.MULTILINE)
_ENVIRONMENT = re.compile(r"^EnvironmentFile[ \t]*=[ \t]*-?(/etc/.*\S)", re.MULTILINE)


def of(unit: str) -> tuple[str, ...]:
    """Return the paths of a unit, its drop-ins, its programs, and the files below /etc that it names.

    () if there is no such unit. Raises OSError if one of its files cannot be read.
    """
    file = next((path for path in (directory / unit for directory in DIRECTORIES) if path.is_file()), None)
    if file is None:
        return ()
    drop_ins = (conf for directory in DIRECTORIES for conf in sorted((directory / f"{unit}.d").glob("*.conf")))
    # /lib may be a link to /usr/lib
    own = {path.resolve(): path for path in reversed([file, *filter(Path.is_file, drop_ins)])}
    text = "\n".join(path.read_text(errors="replace") for path in own.values())
    return tuple(sorted({*map(str, own.values()), *_named(_CONTINUED.sub(" ", text))}))


def _named(text: str) -> Iterator[str]:
    """Yield the programs and the files below /etc that the text of a unit names."""
    yield from (path for path in _ENVIRONMENT.findall(text) if Path(path).is_file())
    for command in _COMMAND.findall(text):
        program, *words = command.split() or [""]  # an empty command takes back those before it
        yield from filter(None, [located(program)])
        for word in words:
            path = word.partition("=")[2] if "=" in word else word
            if path.startswith("/etc/") and Path(path).is_file():
                yield path
