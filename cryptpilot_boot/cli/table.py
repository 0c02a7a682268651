"""The commands: a row each, and for each a file in `verbs`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, NamedTuple, cast

if TYPE_CHECKING:
    from cryptpilot_boot.cli.verb import Verb


class Row(NamedTuple):
    """A command, before its file is loaded.

    words: as they are typed, and with "_" for " " and "-" the name of the file. summary: its line in `--help`.
    needs_all_files: whether it must not go on when a file of the configuration cannot be used. boots: whether it
    decides by itself what that means. needs_configuration: False when it has no use for one.
    """

    words: str
    summary: str
    needs_all_files: bool = False
    boots: bool = False
    needs_configuration: bool = True


class Group(NamedTuple):
    """The first word that several commands share. summary, description: as for a command."""

    summary: str
    description: str | None = None


ROWS = (
    Row("show", "show the volumes and their states"),
    # it destroys data: no file may hide a volume that has the device already
    Row("init", "initialize persistent volumes; the data on their devices is lost", needs_all_files=True),
    Row("adopt", "take volumes that another program made, with their data"),
    Row("convert", "encrypt the root of an ordinary disk image, or of a disk", needs_all_files=True),
    Row("image measure", "show the measurements of a machine that boots the image", needs_configuration=False),
    Row("image unify", "make the unified kernel image of this machine again", needs_all_files=True),
    Row("open", "open volumes as /dev/mapper/VOLUME"),
    Row("close", "close volumes; a temporary volume loses its data"),
    Row("enroll", "have a volume take the secret of another of its sources, too"),
    Row("rotate", "move volumes to the current values of their secrets, which KMS has rotated"),
    Row("bind", "bind volumes to their disks, so that no other disk opens instead"),
    Row("resize", "grow open volumes whose devices were enlarged, and their file systems"),
    Row("recovery-key", "enroll a recovery key, which opens a volume without its key provider"),
    Row("header backup", "write the header of a volume to a new file"),
    Row("header restore", "put the header of a volume back"),
    Row("config check", "check that every volume can be opened"),
    Row("boot-service", "open the auto_open volumes of a boot stage (run by systemd)", boots=True),
    Row("generator", "write units for the volumes (run by systemd, see systemd.generator(7))", boots=True),
    Row("boot report", "show the timeline of this boot", needs_configuration=False),
    # an image has to be complete
    Row("initrd plan", "print what the initrd must carry (for the dracut module)", needs_all_files=True),
    Row("initrd record", "print what the initrd is made from (for the dracut module)", needs_all_files=True),
    Row("initrd status", "show whether each kernel's image is current"),
    Row("initrd check", "check that an image would do its work"),
    Row("initrd rebuild", "rebuild an image; the old one stays until the new one has passed its check", True),
)
"""In the order in which `--help` shows them."""

GROUPS = {
    "image": Group("disk images"),
    "header": Group(
        "save the LUKS2 header of a volume, and put it back",
        """\
The header at the beginning of a volume's device holds the volume key, encrypted. Without it the data cannot be read
again, with any secret. A backup of it has 16 MiB, and opens nothing by itself.
""",
    ),
    "config": Group("the configuration"),
    "boot": Group("what happened at boot"),
    "initrd": Group(
        "check and rebuild initrd images",
        """\
The initrd has its own copy of the agent, and of the configuration of the volumes that it opens. Rebuild it after a
change: status tells whether that is needed, rebuild does it, check finds whether an image would work.
""",
    ),
}


def load(row: Row) -> Verb:
    """Load the file of a command."""
    name = row.words.translate({ord(" "): "_", ord("-"): "_"})
    return cast("Verb", importlib.import_module(f"cryptpilot_boot.cli.verbs.{name}").VERB)
