"""Disks that somebody changed while the machine was off: none is opened by a header that does not protect it.

The passphrase is right all along: what keeps a volume closed is what its header says.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Callable

import pytest

from tests import headers, machines
from tests.headers import SECOND, Template
from tests.lab.disk import Disk, blank_disk
from tests.lab.uml import run_uml

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 64 << 20
NULL = "cipher_null-ecb"
DISTRUSTED = "is not to be trusted"
OPEN_TO_ALL = "null cipher in a key slot"
INTEGRITY = "without the integrity that is wanted"

HONEST: dict[str, Callable[[Template], dict[int, bytes]]] = {
    "as it was": lambda t: t.both(),
    "only the second copy": lambda t: {0: bytes(SECOND), SECOND: t.copy(second=True)},
    "a label that a terminal obeys": lambda t: t.both(label=b"\x1b[2J\nSUBSYSTEM=cryptpilot-initializing"),
}

# By name: what is put where, what `show` calls it, and a part of what `open` says.
HOSTILE: dict[str, tuple[Callable[[Template], dict[int, bytes]], str, str]] = {
    "null cipher": (
        lambda t: t.both(t.changed(lambda m: headers.set_cipher(m, NULL))),
        "check-failed",
        DISTRUSTED,
    ),
    OPEN_TO_ALL: (headers.open_to_all, "check-failed", DISTRUSTED),
    "null cipher in a key slot of the second copy": (
        lambda t: {**headers.open_to_all(t, seqid=99), 0: t.copy()},
        "check-failed",
        DISTRUSTED,
    ),
    "null cipher hidden by a NUL": (
        lambda t: t.both(headers.hide_cipher(json.dumps(t.metadata).encode())),
        "check-failed",
        "makes no sense",
    ),
    "null cipher named first": (
        lambda t: t.both(headers.double_cipher(json.dumps(t.metadata).encode())),
        "check-failed",
        "makes no sense",
    ),
    "no encryption": (lambda t: t.both(t.changed(headers.make_linear)), "check-failed", DISTRUSTED),
    "encryption of a part": (lambda t: t.both(t.changed(headers.add_linear)), "check-failed", DISTRUSTED),
    INTEGRITY: (lambda t: t.both(), "check-failed", DISTRUSTED),
    "a key slot over the second copy": (
        lambda t: t.both(t.changed(lambda m: headers.slot_area(m).update(offset=str(SECOND), size="4096"))),
        "check-failed",
        "makes no sense",
    ),
    "deep nesting": (lambda t: t.both(b"[" * 2000000 + b"]" * 2000000, size=4 << 20), "check-failed", "makes no sense"),
    "wrong checksums": (lambda t: {0: t.copy()[:-1] + b"x"}, "check-failed", "no copy of it is whole"),
    "version 1": (lambda t: t.both(version=1), "requires-init", "of somebody else"),
    "a mark that a terminal obeys": (
        lambda t: t.both(subsystem=b"\x1b[2J\nSUBSYSTEM=cryptpilot"),
        "requires-init",
        "of somebody else",
    ),
}

# What is found stands below headings, each with a volume's name. Debian 12's cryptsetup does not help.
LOOK = """
echo "=== control"
printf "any passphrase" | cryptsetup open --test-passphrase --key-file=- $open_to_all 2>&1 && echo OPENED
echo "=== json"
cryptpilot show --json
echo "=== table"
cryptpilot show
for name in $all; do
    echo "=== $name"
    cryptpilot open $name 2>&1 || true
    if [ -e /dev/mapper/$name ]; then echo OPENED; fi
done
"""


@pytest.fixture(scope="module")
def template(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Template:
    """The header of a volume that the product made."""
    disk = Disk(blank_disk(tmp_path_factory.mktemp("header") / "disk.img", SIZE), "disk")
    script = f"{machines.NO_VOLUMES}{machines.exec_volume('volume', disk.device)}\ncryptpilot init volume --yes"
    run_uml(tree, script, disks=[disk]).check()
    return Template.of(disk.path)


def test_a_volume_that_was_tampered_with_stays_closed(tree: Path, tmp_path: Path, template: Template) -> None:
    makes = {**HONEST, **{name: make for name, (make, _, _) in HOSTILE.items()}}
    names = {f"v{number}": name for number, name in enumerate(makes)}
    disks = {
        short: Disk(template.put(makes[name](template), tmp_path / f"{short}.img", SIZE), short)
        for short, name in names.items()
    }
    files = "".join(
        machines.exec_volume(short, disk.device, integrity=names[short] == INTEGRITY) for short, disk in disks.items()
    )
    (open_to_all,) = [disks[short].device for short, name in names.items() if name == OPEN_TO_ALL]
    script = f"{machines.NO_VOLUMES}{files}all='{' '.join(disks)}'\nopen_to_all={open_to_all}\n{LOOK}"
    # by which cryptsetup has the kernel decrypt key slots
    modules = ["algif_skcipher"]
    result = run_uml(tree, script, disks=list(disks.values()), modules=modules, timeout=240).check()
    assert re.fullmatch(r"[^\x00-\x09\x0b-\x1f\x7f-\x9f]*", result.stdout)
    _, *parts = re.split(r"^=== (\w+)\n", result.stdout, flags=re.MULTILINE)
    said = dict(zip(parts[::2], parts[1::2]))
    shown = {one["volume"]: one["status"] for one in json.loads(said["json"])}
    assert said["control"] == "OPENED\n"
    for short, name in names.items():
        opened = "OPENED" in said[short]
        if name in HONEST:
            assert (opened, shown[short]) == (True, "ready-to-open"), f"{name}: {said[short]}"
        else:
            _, status, reason = HOSTILE[name]
            assert (opened, shown[short]) == (False, status), f"{name}: {said[short]}"
            assert reason in said[short], name
            assert f"/dev/mapper/{short} is open" not in said[short]
