"""Disks that somebody changed while the machine was off: none is opened by a header that does not protect it.

The passphrase is right all along: what keeps a volume closed is what its header says.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Callable

import pytest

from tests import headers, machines
from tests.headers import SECOND, Template
from tests.lab.disk import Disk, blank_disk
from tests.lab.uml import run_uml

SIZE = 64 << 20
NULL = "cipher_null-ecb"
DISTRUSTED = "is not to be trusted"
OPEN_TO_ALL = "null cipher in a key slot"
GUESSED = "a volume key of one byte, guessed"
FLAGGED = "flags that say how the disk is used"
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
        "is invalid",
    ),
    "null cipher named first": (
        lambda t: t.both(headers.double_cipher(json.dumps(t.metadata).encode())),
        "check-failed",
        "is invalid",
    ),
    "no encryption": (lambda t: t.both(t.changed(headers.make_linear)), "check-failed", DISTRUSTED),
    "encryption of a part": (lambda t: t.both(t.changed(headers.add_linear)), "check-failed", DISTRUSTED),
    INTEGRITY: (lambda t: t.both(), "check-failed", DISTRUSTED),
    "a key slot over the second copy": (
        lambda t: t.both(t.changed(lambda m: headers.slot_area(m).update(offset=str(SECOND), size="4096"))),
        "check-failed",
        DISTRUSTED,
    ),
    "deep nesting": (lambda t: t.both(b"[" * 2000000 + b"]" * 2000000, size=4 << 20), "check-failed", "is invalid"),
    "wrong checksums": (lambda t: {0: t.copy()[:-1] + b"x"}, "check-failed", "no copy of it is whole"),
    "version 1": (lambda t: t.both(version=1), "requires-adopt", "holds a LUKS1 volume"),
    "a mark that a terminal obeys": (
        lambda t: t.both(subsystem=b"\x1b[2J\nSUBSYSTEM=cryptpilot"),
        "requires-adopt",
        "without the mark of cryptpilot",
    ),
}

Make = Callable[[Template], dict[int, bytes]]

# Of a second machine, as one takes 16 disks.
MORE_HONEST: dict[str, Make] = {
    FLAGGED: lambda t: t.both(t.changed(lambda m: m["config"].update(flags=["allow-discards", "same-cpu-crypt"]))),
}
MORE_HOSTILE: dict[str, tuple[Make, str, str]] = {
    GUESSED: (lambda t: guessed(t), "check-failed", DISTRUSTED),
    "a requirement": (
        lambda t: t.both(t.changed(lambda m: m["config"].update(requirements={"mandatory": ["x"]}))),
        "check-failed",
        DISTRUSTED,
    ),
    "a derivation that lasts for hours": (
        lambda t: t.both(t.changed(lambda m: m["keyslots"]["0"]["kdf"].update(iterations=(1 << 32) - 1))),
        "check-failed",
        DISTRUSTED,
    ),
    "a key slot of another key": (
        lambda t: t.both(t.changed(lambda m: m["digests"]["0"].update(keyslots=[]))),
        "check-failed",
        DISTRUSTED,
    ),
    "another cipher": (
        lambda t: t.both(t.changed(lambda m: headers.set_cipher(m, "aes-cbc-essiv:sha256"))),
        "check-failed",
        DISTRUSTED,
    ),
    "another cipher in a key slot": (
        lambda t: t.both(t.changed(lambda m: headers.set_slot_cipher(m, "aes-cbc-essiv:sha256"))),
        "check-failed",
        DISTRUSTED,
    ),
    "a shifted place": (
        lambda t: t.both(t.changed(lambda m: headers.segment(m).update(iv_tweak="8"))),
        "check-failed",
        DISTRUSTED,
    ),
}

# What is found stands below headings, each with a volume's name. Debian 12's cryptsetup does not help.
LOOK = """
echo "=== json"
cryptpilot show --json
echo "=== table"
cryptpilot show
for name in $all; do
    echo "=== $name"
    cryptpilot open $name 2>&1 || true
    if [ -e /dev/mapper/$name ]; then dmsetup table $name; echo OPENED; fi
done
"""


@pytest.fixture(scope="module")
def template(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Template:
    """The header of a volume that the product made."""
    disk = Disk(blank_disk(tmp_path_factory.mktemp("header") / "disk.img", SIZE), "disk")
    script = f"{machines.NO_VOLUMES}{machines.exec_volume('volume', disk.device)}\ncryptpilot init volume --yes"
    run_uml(tree, script, disks=[disk]).check()
    return Template.of(disk.path)


def guessed(template: Template) -> dict[int, bytes]:
    """Return a forged header that cryptsetup opens: one in eight does, and each reboot is another try."""
    with tempfile.TemporaryDirectory() as directory:
        for number in range(200):
            pieces = headers.guess_a_key(template, 7, hashlib.sha256(bytes([number])).digest())
            disk = template.put(pieces, Path(directory, "disk.img"))
            tried = subprocess.run(
                ["cryptsetup", "open", "--type=luks2", "--test-passphrase", "--key-file=-", disk],
                input=machines.EXEC_KEY,
                check=False,
                capture_output=True,
            )
            if tried.returncode == 0:
                return pieces
    raise AssertionError("no forged header opens")


def look(
    tree: Path,
    work: Path,
    template: Template,
    honest: dict[str, Make],
    hostile: dict[str, tuple[Make, str, str]],
    control: str,
) -> dict[str, str]:
    """Try volumes, and require of each what its table says; return what was said, by the volume's description.

    control: shell lines that show what cryptsetup alone makes of them; "{name}" there is the disk of that description.
    """
    makes = {**honest, **{name: make for name, (make, _, _) in hostile.items()}}
    names = {f"v{number}": name for number, name in enumerate(makes)}
    disks = {
        short: Disk(template.put(makes[name](template), work / f"{short}.img", SIZE), short)
        for short, name in names.items()
    }
    files = "".join(
        machines.exec_volume(short, disk.device, integrity=names[short] == INTEGRITY) for short, disk in disks.items()
    )
    for short, name in names.items():
        control = control.replace(f"{{{name}}}", disks[short].device)
    script = f"{machines.NO_VOLUMES}{files}all='{' '.join(disks)}'\necho '=== control'\n{control}\n{LOOK}"
    # by which cryptsetup has the kernel decrypt key slots; and for what is forged
    modules = ["algif_skcipher", "arc4"]
    result = run_uml(tree, script, disks=list(disks.values()), modules=modules, timeout=240).check()
    assert re.fullmatch(r"[^\x00-\x08\x0b-\x1f\x7f-\x9f]*", result.stdout)
    _, *parts = re.split(r"^=== (\w+)\n", result.stdout, flags=re.MULTILINE)
    said = dict(zip(parts[::2], parts[1::2]))
    shown = {one["volume"]: one["status"] for one in json.loads(said["json"])}
    for short, name in names.items():
        opened = "OPENED" in said[short]
        if name in honest:
            assert (opened, shown[short]) == (True, "ready-to-open"), f"{name}: {said[short]}"
            assert re.search(r"^0 \d+ crypt aes-xts-plain64 \S+ 0 \S+ 32768( 1 sector_size:4096)?$", said[short], re.M)
        else:
            _, status, reason = hostile[name]
            assert (opened, shown[short]) == (False, status), f"{name}: {said[short]}"
            assert reason in said[short], name
            assert f"/dev/mapper/{short} is open" not in said[short]
    return {"control": said["control"], **{name: said[short] for short, name in names.items()}}


def test_a_volume_that_was_tampered_with_stays_closed(tree: Path, tmp_path: Path, template: Template) -> None:
    control = f"printf anything | cryptsetup open --test-passphrase --key-file=- {{{OPEN_TO_ALL}}} 2>&1 && echo OPENED"
    assert look(tree, tmp_path, template, HONEST, HOSTILE, control)["control"] == "OPENED\n"


def test_a_volume_whose_header_was_forged_stays_closed(tree: Path, tmp_path: Path, template: Template) -> None:
    """What the disk may say is on a list; what it says beside that has no effect."""
    control = (
        f"cryptsetup open --key-file=/run/key {{{GUESSED}}} control && cryptsetup close control && echo GUESSED\n"
        f"cryptsetup open --key-file=/run/key {{{FLAGGED}}} control && dmsetup table control; cryptsetup close control"
    )
    said = look(tree, tmp_path, template, MORE_HONEST, MORE_HOSTILE, control)
    assert said["control"].startswith("GUESSED\n")
    assert "allow_discards" in said["control"]  # and by the product they were not, as `look` requires


def test_the_disk_does_not_choose_how_it_is_used(tree: Path, tmp_path: Path) -> None:
    """By its flags cryptsetup alone does without the journal of integrity; so would a power cut lose sectors."""
    disk = Disk(blank_disk(tmp_path / "disk.img", SIZE), "disk")
    script = f"""{machines.NO_VOLUMES}{machines.exec_volume("volume", disk.device, integrity=True)}
cryptpilot init volume --yes > /dev/null
cryptsetup open --key-file=/run/key --persistent --integrity-no-journal {disk.device} control
cryptsetup close control
cryptsetup open --key-file=/run/key {disk.device} control
echo "control $(dmsetup table control_dif)"
cryptsetup close control
cryptpilot open volume > /dev/null
echo "volume $(dmsetup table volume_dif)"
cryptpilot close volume
cryptpilot config check
"""
    found = run_uml(tree, script, disks=[disk]).check().stdout
    assert re.search(r"^control 0 \d+ integrity \S+ 32768 32 D ", found, re.MULTILINE), found
    assert re.search(r"^volume 0 \d+ integrity \S+ 32768 32 J ", found, re.MULTILINE), found
    assert 'warning: its header says "no-journal"' in found


def test_a_key_that_takes_long_to_derive_keeps_no_interruption_waiting(tree: Path, tmp_path: Path) -> None:
    """The disk chooses how long that is, within limits."""
    disk = Disk(blank_disk(tmp_path / "disk.img", SIZE), "disk")
    script = f"""{machines.NO_VOLUMES}{machines.exec_volume("volume", disk.device)}
cryptpilot init volume --yes > /dev/null
cryptsetup luksChangeKey --batch-mode --pbkdf=pbkdf2 --pbkdf-force-iterations=10000000 --key-file=/run/key \\
    {disk.device} /run/key
now() {{ date +%s%N; }}
begin=$(now); cryptsetup open --test-passphrase --key-file=/run/key {disk.device}; echo "derived $(($(now) - begin))"
cryptpilot open volume > /run/said 2>&1 & work=$!
until pgrep -x cryptsetup > /dev/null; do sleep 0.1; done
begin=$(now); kill -TERM $work; status=0; wait $work || status=$?
echo "interrupted $(($(now) - begin))"; echo "status $status"; cat /run/said; dmsetup ls; ! pgrep -x cryptsetup
cryptpilot open volume
"""
    found = run_uml(tree, script, disks=[disk], timeout=240).check().stdout
    seconds = {
        what: int(value) / 1e9 for what, value in re.findall(r"^(derived|interrupted) (\d+)$", found, re.MULTILINE)
    }
    assert seconds["interrupted"] < seconds["derived"], found
    assert "status 130\ncryptpilot: interrupted\nNo devices found\n" in found
    assert found.endswith("volume: /dev/mapper/volume is open\n")
