"""The commands: a row each, and for each a file in `verbs`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, NamedTuple, cast

from cryptpilot_boot.errors import CryptpilotError, describe_bug

if TYPE_CHECKING:
    from cryptpilot_boot.cli.verb import Verb


class Row(NamedTuple):
    """A command, before its file is loaded.

    words: as they are typed, and with "_" for " " and "-" the name of the file. summary: its line in `--help`.
    needs_all_files: whether it must not go on when a file of the configuration cannot be used. boots: whether it
    handles such a file itself. needs_configuration: False when it has no use for one.
    """

    words: str
    summary: str
    needs_all_files: bool = False
    boots: bool = False
    needs_configuration: bool = True


class Section(NamedTuple):
    """Commands of one purpose. hidden: whether people never type them: `--help` and completion leave them out."""

    title: str
    rows: tuple[Row, ...]
    hidden: bool = False


SECTIONS = (
    Section(
        "Volumes",
        (
            # it destroys data: no file may hide a volume that has the device already
            Row("init", "format devices as encrypted volumes; destroys their data", needs_all_files=True),
            Row("open", "open volumes as /dev/mapper/VOLUME"),
            Row("close", "close volumes; a temporary volume loses its data"),
            Row("adopt", "take over volumes that another program made, with their data"),
            Row("resize", "grow volumes, and their file systems, to their devices"),
        ),
    ),
    Section(
        "Keys and headers",
        (
            Row("rotate", "switch volumes to the new value of a secret rotated in KMS"),
            Row("enroll", "add the key of another source to a volume"),
            Row("recovery-key", "add a recovery key, which needs no key provider"),
            Row("bind", "bind volumes to their disks, so that no other disk opens"),
            Row("header backup", "write the LUKS2 header of a volume to a file"),
            Row("header restore", "put the LUKS2 header of a volume back from a file"),
        ),
    ),
    Section(
        "Look and check",
        (
            Row("show", "show the volumes and their states"),
            Row("config check", "check that every volume can be opened at boot"),
            Row("boot report", "show what happened in this boot, and when", needs_configuration=False),
        ),
    ),
    Section(
        "Initrd images",
        (
            Row("initrd status", "show whether the image of each kernel is current"),
            Row("initrd check", "check that an image would open its volumes"),
            # an image has to be complete
            Row("initrd rebuild", "rebuild an image, and check it before it replaces the old one", True),
        ),
    ),
    Section(
        "Whole systems",
        (
            Row("convert", "encrypt the root of a disk image, or of an attached disk", needs_all_files=True),
            Row("image measure", "compute the measurements of an image's boot", needs_configuration=False),
            Row("image unify", "rebuild the unified kernel image of this machine", needs_all_files=True),
        ),
    ),
    Section(
        "Run by systemd and dracut",
        (
            Row("boot-service", "open the auto_open volumes of a boot stage", boots=True),
            Row("generator", "write units for the volumes, see systemd.generator(7)", boots=True),
            Row("initrd plan", "print what the initrd must carry", needs_all_files=True),
            Row("initrd record", "print what the initrd is made from", needs_all_files=True),
        ),
        hidden=True,
    ),
)
"""In the order in which `--help` and the man page show them."""

ROWS = tuple(row for section in SECTIONS for row in section.rows)
HIDDEN = frozenset(row.words for section in SECTIONS if section.hidden for row in section.rows)

GROUPS = {
    "header": """\
Saves the LUKS2 header of a volume, and puts it back. The header at the beginning of a volume's device holds the volume
key, encrypted. Without it the data cannot be read again, with any secret. A backup of it has 16 MiB, and opens nothing
by itself.
""",
    "config": "Checks the configuration.",
    "boot": "Reports what happened at boot.",
    "initrd": """\
Checks and rebuilds initrd images. The initrd has its own copy of the agent, and of the configuration of the volumes
that it opens. Rebuild it after a change: status tells whether that is needed, rebuild does it, check finds whether an
image would work.
""",
    "image": "Measures disk images, and rebuilds the unified kernel image of a machine.",
}
"""The descriptions of the first words that several commands share."""


def load(row: Row) -> Verb:
    """Load the file of a command. Raises CryptpilotError if it cannot be loaded, as from a damaged bundle."""
    name = row.words.translate({ord(" "): "_", ord("-"): "_"})
    try:
        return cast("Verb", importlib.import_module(f"cryptpilot_boot.cli.verbs.{name}").VERB)
    except Exception as error:
        what = f"the command {row.words} cannot be loaded: {describe_bug(error)}"
        raise CryptpilotError(what, "install cryptpilot again; in an initrd: cryptpilot initrd rebuild") from None
