"""docs/tutorial-data.md: its command lines are typed as they are printed, and print what stands below them.

The machine has an empty disk and a KMS. No systemd runs on it: in place of a reboot, the volume is closed, and then
the program of cryptpilot.service is run.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from tests import machines, printed
from tests.lab.disk import Disk, blank_disk

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.printed import Printed

PAGE = machines.CHECKOUT / "docs/tutorial-data.md"
SIZE = 256 << 20
THEIRS, OURS = "vdb", "ubda"
"""The kernel's name for the disk: on the page, and on this machine."""
SYSTEM_DISK = "vda"
"""A disk of the page that this machine does not have."""
QUESTION = "[y/N]"
HERE = {
    "rm /run/secret": f"mv /run/secret {machines.KMS_FILES}/secret",
    "reboot": "umount /data; cryptpilot close data1; cryptpilot boot-service --stage system; mount --all",
}
"""What is typed here in place of a command line: the secret goes into KMS, and the machine starts again."""
MAY_SAY_MORE = (*HERE, "systemctl daemon-reload", "cryptpilot config check", "cryptpilot boot report")
"""Command lines that may print more than the page has: systemctl says that it runs in a chroot, others what they wait
for.
"""


def test_the_tutorial_is_what_happens(site: machines.Site, tree: Path, tmp_path: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    typed = printed.commands(page, "machine")
    assert len(typed) > 30
    assert HERE.keys() <= {one.command for one in typed}
    [name] = set(re.findall(r"virtio-(\w+)", page))
    own = site.copied(tmp_path / "kms")
    script = "\n".join(["rm /etc/cryptpilot/volumes/*", *(_line(_with_values(one.command, own), one) for one in typed)])
    disk = Disk(blank_disk(tmp_path / "disk.img", SIZE), name)
    result = machines.run_with_kms(own, tree, script, disks=[disk], timeout=300).check()
    _, *parts = re.split(r"^=== .*\n", result.stdout, flags=re.MULTILINE)
    for one, said in zip(typed, parts, strict=True):
        *lines, status = said.splitlines()
        printed_here, said_here = _lines(one.output), _lines(lines)
        missing = [line for line in printed_here if not _is_among(line, said_here)]
        more = [line for line in said_here if not _is_among(line, printed_here)]
        assert (missing, more if one.command not in MAY_SAY_MORE else []) == ([], []), f"{one.command}\n{said}"
        assert (status == "status 0") is not any("error: " in line for line in one.output), f"{one.command}\n{said}"
    assert (own.directory / "secret").read_text() != site.secret
    assert {request["outcome"] for request in own.requests()} == {"ok"}


def _line(command: str, one: Printed) -> str:
    """Return the shell lines that type a command, and print what it is and how it ends."""
    here = HERE.get(command, command).replace(f"/dev/{THEIRS}", f"/dev/{OURS}")
    answers = [line.partition(QUESTION)[2].strip() for line in one.output if QUESTION in line]
    if answers:  # a question needs a terminal
        here = f"printf '%s\\n' {' '.join(answers)} | script --quiet --return --command {shlex.quote(here)} /dev/null"
    told = shlex.quote(one.command.partition("\n")[0])
    return f"printf '=== %s\\n' {told}\nstatus=0\n{{ {here}\n}} < /dev/null 2>&1 || status=$?\necho \"status $status\""


def _with_values(command: str, site: machines.Site) -> str:
    """Return a command with the values of a KMS instance in place of the dots, if it has them."""
    if "kst-..." not in command:
        return command
    password = (site.directory / "client_key_password").read_text()
    values = {
        "kst-...": machines.INSTANCE,
        '{"KeyId": "KAAP...", "PrivateKeyData": "..."}': (site.directory / "client_key.json").read_text(),
        'client_key_password = "..."': f'client_key_password = "{password}"',
        "-----BEGIN CERTIFICATE-----\n...": (site.directory / "ca.pem").read_text(),
    }
    for dots, value in values.items():
        assert command.count(dots) == 1
        command = command.replace(dots, value)
    return command


def _lines(output: Sequence[str]) -> list[str]:
    """Return the lines of an output, whatever the sizes, the widths of columns and the lengths of bars.

    What follows a question is a line of its own: whether a terminal shows the answer there depends on when it is typed.
    """
    text = "\n".join(output).replace(QUESTION, f"{QUESTION}\n").replace(OURS, THEIRS)
    lines = [re.sub(r"\b\d[\d.]* ?[MG](iB)?\b", "SIZE", line).rstrip(" =.!|") for line in text.splitlines()]
    return [" ".join(line.split()) for line in lines if line and SYSTEM_DISK not in line]


def _is_among(line: str, lines: Sequence[str]) -> bool:
    return printed.is_printed(line, "\n".join(lines))
