"""What `--help` shows beyond what argparse knows of: all commands by purpose, examples, exit status."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.cli import table
from cryptpilot_boot.cli.verb import Example

if TYPE_CHECKING:
    from collections.abc import Sequence

EXAMPLES = (
    Example("cryptpilot config check", "Find what would fail at the next boot, after a changed configuration."),
    Example("cryptpilot init data1", "Format the device of the volume data1. Asks first."),
    Example("cryptpilot open data1", "Open it as /dev/mapper/data1."),
    Example("cryptpilot initrd rebuild", "Take the changed configuration into the initrd of the running kernel."),
)
EXIT_STATUS = {
    0: "success; opening an open volume or closing a closed one is a success",
    1: "something failed; the other named volumes are done",
    2: "the command line, or a file of the configuration, is wrong",
    130: "interrupted; nothing was left half open",
}
CONFIGURATION = """\
Volumes are described in /etc/cryptpilot/volumes/*.toml, one file each. If one
of the files is wrong, init, convert, open --overwrite, image unify and initrd
rebuild do nothing; other commands go on with the other volumes.
"""
_MORE = '"cryptpilot COMMAND --help" describes a command.\n'


def of_program() -> str:
    """Return what `cryptpilot --help` shows below the options."""
    width = max(len(row.words) for row in table.ROWS)
    lines = []
    for section in table.SECTIONS:
        if not section.hidden:
            lines += ["", f"{section.title.lower()}:"]
            lines += [f"  {row.words:{width}}  {row.summary}" for row in section.rows]
    lines += ["", "exit status:", *(f"  {status:<3}  {text}" for status, text in EXIT_STATUS.items()), ""]
    return "\n".join([*lines, CONFIGURATION, _MORE]) + of_examples(EXAMPLES)


def of_examples(examples: Sequence[Example]) -> str:
    """Return the examples of a command as the last part of its `--help`."""
    lines = [f"  {one.line}\n      {one.purpose}\n" for one in examples]
    return "".join(["\nexamples:\n", *lines]) if lines else ""
