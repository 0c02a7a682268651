"""What a boot leaves behind, on the console and in files, and what must not be there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.machines import Site

AGENT = re.compile(r"cryptpilot\[\d+\]: (.*)")


def agent_lines(console: str) -> list[str]:
    """Return the lines of the agent on the console."""
    return [match[1] for match in AGENT.finditer(console)]


def require_no_secret(site: Site, texts: dict[str, str]) -> None:
    """Fail if one of the texts has anything that must stay in memory."""
    for name, text in texts.items():
        data = text.encode(errors="surrogateescape")
        for what, secret in site.forbidden.items():
            assert secret not in data, f"{what} is in {name}"
