"""`python -m buildlib.distribute.pages`: writes the man pages and the completion into the checkout.

They are kept there, so that installing needs none of the packages that the command line needs to be imported.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cryptpilot_boot
from buildlib.base import ROOT
from buildlib.distribute import command_pages, commands, completion, completion_zsh, documents
from cryptpilot_boot.cli.arguments import whole


def pages() -> dict[Path, str]:
    """Return the files by their paths in the checkout."""
    program = commands.read(whole())
    version = cryptpilot_boot.__version__
    own = {Path(f"man/{name}.8"): text for name, text in command_pages.pages(program, version).items()}
    described = {
        Path(f"man/{one.name}.{one.section}"): documents.page(
            one, (ROOT / one.source).read_text(encoding="utf-8"), version
        )
        for one in documents.DOCUMENTS
    }
    return {
        **own,
        **described,
        Path("completions/cryptpilot"): completion.bash(program),
        Path("completions/_cryptpilot"): completion_zsh.zsh(program),
    }


if __name__ == "__main__":
    for path, text in pages().items():
        (ROOT / path).parent.mkdir(exist_ok=True)
        (ROOT / path).write_text(text, encoding="utf-8")
        sys.stdout.write(f"{path}\n")
