"""The `[[fallback]]` tables of a volume's file; an error names the line of the table it is about. Pure."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from cryptpilot_boot.config.document import Document
from cryptpilot_boot.errors import ConfigError
from cryptpilot_boot.providers import table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cryptpilot_boot.config.model import Encrypt

MOST = 7
"""The largest number in a file. A LUKS2 header has 32 key slots: each source needs one, and two during a rotation."""
_BEGIN = re.compile(r"\s*\[\[\s*fallback\s*\]\]")
_TABLE = re.compile(r"\s*\[{1,2}\s*([A-Za-z0-9_-]+)")


def each(document: Document) -> Iterator[Document]:
    """Yield a document for each fallback, with the line numbers of the file. Raises ConfigError for too many."""
    entries = document.data.get("fallback", [])
    if len(entries) > MOST:
        raise ConfigError(
            f"{document.path}: there are {len(entries)} [[fallback]] tables; at most {MOST} are allowed",
            "remove those that you do not need: each is one more way to the data",
        )
    texts = _parts(document.text)
    for number, entry in enumerate(entries):
        text = texts[number] if len(texts) == len(entries) else ""
        yield dataclasses.replace(document, text=text, whole=document.text, data={"fallback": entry})


def _parts(text: str) -> list[str]:
    """Return the text once for each fallback, with empty lines in place of all others."""
    lines = text.split("\n")
    here = -1  # the fallback that the line belongs to, -1 for none
    count = 0
    owners = []
    for line in lines:
        if _BEGIN.match(line):
            here, count = count, count + 1
        elif (found := _TABLE.match(line)) and found[1] != "fallback":
            here = -1
        owners.append(here)
    return ["\n".join(line if owner == one else "" for line, owner in zip(lines, owners)) for one in range(count)]


def same(one: Encrypt, other: Encrypt) -> bool:
    """Tell whether two sources are the same: one secret at one place, so that they fail together."""
    if one == other:
        return True
    secret = table.of(one).secret(one)
    if not secret or secret != table.of(other).secret(other):
        return False
    return table.of(one).describe(one) == table.of(other).describe(other)


def require_different(document: Document, line: str, mine: Encrypt, before: Sequence[Encrypt]) -> None:
    """Raise ConfigError for a fallback that is the same as a source before it. line: ":LINE" of the fallback, or "".

    The header cannot tell two sealed keys of the same kind apart: that is refused too.
    """
    for number, other in enumerate(before):
        whose = f"fallback {number}" if number else f"[encrypt.{other.provider}]"
        if type(mine) is type(other) and table.is_on_device(mine) and table.is_on_device(other):
            alike = "a key sealed to the TPM, to be used with other values" if table.of(mine).parts else "a sealed key"
            raise ConfigError(
                f"{document.path}{line}: [[fallback]] has {alike}, as {whose} has: a new key of one would replace"
                " that of the other",
                "remove it, or choose another source",
            )
        if same(mine, other):
            raise ConfigError(
                f"{document.path}{line}: [[fallback]] has the same secret as {whose}, from the same place: it fails"
                " when that fails",
                "name another secret, or another place; or remove it",
            )
