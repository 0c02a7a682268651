"""Rotation on real dm-crypt: a secret gets a new value in KMS, and the volumes follow."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests import machines
from tests.lab.disk import Disk, blank_disk

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.uml import UmlResult

DEVICE = "/dev/disk/by-id/virtio-d1"


class Bench:
    """A KMS of its own, whose secret may be rotated, and a disk for a volume `data1`."""

    def __init__(self, tree: Path, work: Path, secret: str = "") -> None:
        self.site = machines.make_site(work / "kms", secret)
        self.tree = tree
        self.disk = Disk(blank_disk(work / "d1.img", 64 << 20), "d1")

    def run(self, script: str) -> UmlResult:
        """Run a script with the KMS; what must fail is run by `fails`, values in files named after their secrets."""
        return machines.run_with_kms(
            self.site,
            self.tree,
            f"""
rm -f /etc/cryptpilot/volumes/*
umask 077
cat > /etc/cryptpilot/volumes/data1.toml << 'END OF FILE'
{machines.volume_file(self.site, volume="data1", dev=DEVICE)}
END OF FILE
{HELPERS}
{script}
""",
            disks=[self.disk],
            timeout=180,
        )

    def asked(self) -> list[tuple[str, str]]:
        """Return stage and outcome of the requests so far, and forget them."""
        requests = [(request["stage"], request["outcome"]) for request in self.site.requests()]
        self.site.forget_requests()
        return requests


HELPERS = rf"""
fails() {{ status=0; "$@" 2>&1 || status=$?; echo "status $status"; [ $status != 0 ]; }}
keep() {{ base64 -d {machines.KMS_FILES}/secret > /run/$1; }}
# Says which of some files open a key slot, and how many slots there are.
slots() {{
    for key in "$@"; do
        cryptsetup open --test-passphrase --key-file /run/$key {DEVICE} 2> /dev/null && echo "slot: $key" || true
    done
    echo "slots: $(cryptsetup luksDump {DEVICE} | grep -c '^  [0-9]*: luks2$')"
}}
"""


@pytest.fixture
def bench(tree: Path, tmp_path: Path) -> Bench:
    return Bench(tree, tmp_path)


def parts(result: UmlResult) -> dict[str, str]:
    """Return what a script printed below its headings, which are lines like `=== heading`."""
    _, *rest = f"\n{result.stdout}".split("\n=== ")
    return {text.split("\n", 1)[0]: text.partition("\n")[2].strip() for text in rest}


def record(text: str) -> dict[str, Any]:
    """Return the one volume of `show --json`."""
    (found,) = json.loads(text)
    return dict(found)


OTHER = base64.b64encode(bytes(range(128, 192))).decode()
"""A value that opens nothing."""
CURRENT, PREVIOUS = ("ACSCurrent", "ok"), ("ACSPrevious", "ok")


def test_a_volume_follows_its_secret(bench: Bench) -> None:
    """Its life through two rotations; a key slot somebody else added stays."""
    result = bench.run(f"""
cryptpilot init data1 --yes
keep first
head -c 64 /dev/urandom > /run/recovery
cryptsetup luksAddKey -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file /run/first {DEVICE} /run/recovery
{machines.ROTATE_SECRET}
keep second
echo; echo "=== open"
cryptpilot open data1
echo "=== pending"
cryptpilot show --json
echo "=== table"
cryptpilot show
echo "=== check"
cryptpilot config check
mkfs.ext4 -q -F /dev/mapper/data1
mount /dev/mapper/data1 /mnt
echo kept > /mnt/file
echo "=== rotate"
cryptpilot rotate data1
echo "=== again"
cryptpilot rotate data1
echo "=== done"
cryptpilot show --json
echo "=== slots"
slots first second recovery
umount /mnt
cryptpilot close data1 > /run/said
echo "=== reopen"
cryptpilot open data1
mount /dev/mapper/data1 /mnt
cat /mnt/file
umount /mnt
cryptpilot close data1
{machines.ROTATE_SECRET}
keep third
echo "=== closed"
cryptpilot rotate data1
slots first second third recovery
cryptpilot open data1
""").check()
    told = parts(result)
    again = "with the previous value of its secret; rotate it: cryptpilot rotate data1"
    assert told["open"] == f"data1: /dev/mapper/data1 is open, {again}"
    pending, done = record(told["pending"]), record(told["done"])
    assert (pending["status"], pending["detail"], pending["rotation_pending"]) == ("opened", again, True)
    assert told["table"].endswith(f"opened: {again}")
    assert "data1: warning: it opens with the previous value of its secret only" in told["check"]
    assert told["rotate"] == f"data1: {DEVICE} is rotated: only the current value of its secret opens it now"
    assert told["again"].startswith(f"data1: {DEVICE} has nothing to rotate: ")
    assert (done["status"], done["detail"], done["rotation_pending"]) == ("opened", "", False)
    assert told["slots"] == "slot: second\nslot: recovery\nslots: 2"
    assert told["reopen"].startswith("data1: /dev/mapper/data1 is open\nkept\n")
    assert "slot: third\nslot: recovery\nslots: 2\n" in told["closed"]
    assert told["closed"].endswith("data1: /dev/mapper/data1 is open")
    assert bench.asked() == [
        CURRENT,  # init
        *(CURRENT, PREVIOUS),  # open
        *(CURRENT, PREVIOUS),  # config check
        *(CURRENT, PREVIOUS) * 2,  # rotate
        CURRENT,  # open
        *(CURRENT, PREVIOUS),  # rotate
        CURRENT,  # open
    ]


def test_nothing_is_removed_unless_the_current_value_opens_the_volume(bench: Bench) -> None:
    """And who cannot be helped is told why."""
    result = bench.run(f"""
cryptpilot init data1 --yes
keep first
echo; echo "=== never rotated"
cryptpilot rotate data1
echo "=== equal"
cp {machines.KMS_FILES}/secret {machines.KMS_FILES}/previous
cryptpilot rotate data1
slots first
rm {machines.KMS_FILES}/previous
echo "=== replaced"
cp {machines.KMS_FILES}/secret /run/kept
echo "{OTHER}" > {machines.KMS_FILES}/secret
head -c 16M {DEVICE} | sha256sum > /run/before
fails cryptpilot open data1
fails cryptpilot rotate data1
echo "=== too old"
{machines.ROTATE_SECRET}
fails cryptpilot open data1
fails cryptpilot rotate data1
fails cryptpilot config check
head -c 16M {DEVICE} | sha256sum --check --quiet /run/before
echo "=== check-fs"
cp /run/kept {machines.KMS_FILES}/previous
cryptpilot open data1 --check-fs
cryptpilot close data1
echo "=== unusable"
cp {machines.KMS_FILES}/secret /run/usable
echo 'this is no base64!' > {machines.KMS_FILES}/secret
cryptpilot config check
cryptpilot open data1
cryptpilot close data1
fails cryptpilot rotate data1
cp /run/usable {machines.KMS_FILES}/secret
echo "=== closed"
cryptpilot show
echo "=== anew"
cryptpilot init data1 --yes --force-reinit
cryptpilot show
cat > /etc/cryptpilot/volumes/otp.toml << 'END OF FILE'
volume = "otp"
dev = "/dev/disk/by-id/virtio-otp"
[encrypt.otp]
END OF FILE
{machines.exec_volume("exec", "/dev/disk/by-id/virtio-exec")}
echo "=== other providers"
fails cryptpilot rotate otp exec
""").check()
    told = parts(result)
    nothing = (
        f"data1: {DEVICE} has nothing to rotate: it takes the current value of its secret, and not the previous one"
    )
    assert told["never rotated"] == nothing
    assert told["equal"] == f"{nothing}\nslot: first\nslots: 1"
    wrong = f"cryptpilot: error: data1: the secret does not open {DEVICE}: no key slot takes it,"
    assert told["replaced"].count(f'{wrong} and secret "{machines.SECRET_NAME}" has no previous value\n') == 2
    assert told["too old"].count(f"{wrong} nor its previous value\n") == 2
    assert f"data1: error: the secret does not open {DEVICE}: no key slot takes it, nor its" in told["too old"]
    assert (told["replaced"] + told["too old"]).count("\nstatus 1") == 5
    assert "data1: /dev/mapper/data1 is open, with the previous value" in told["check-fs"]
    unusable = f'the value of secret "{machines.SECRET_NAME}" is not base64'
    assert f"data1: warning: it opens with the previous value of its secret only; {unusable}: store" in told["unusable"]
    assert "data1: /dev/mapper/data1 is open, with the previous value" in told["unusable"]
    assert f"cryptpilot: error: data1: {unusable}" in told["unusable"]
    assert "ready-to-open: last opened with the previous value of its secret" in told["closed"]
    assert told["anew"].endswith("ready-to-open")
    assert "otp: has nothing to rotate: it is temporary" in told["other providers"]
    assert "exec: cannot be rotated: command cat has no previous value to ask for" in told["other providers"]
    assert told["other providers"].endswith("\nstatus 1")


def test_an_interrupted_rotation_leaves_a_key_and_is_finished_by_the_next(bench: Bench) -> None:
    """Ctrl-C while a key slot is added or removed: what has begun is finished, and nothing else begun."""
    result = bench.run(f"""
cryptpilot init data1 --yes
keep first
{machines.ROTATE_SECRET}
keep second
cp /usr/sbin/cryptsetup /run/cryptsetup.real
printf '#!/bin/sh\n[ "$1" != "$(cat /run/when)" ] || kill -INT $PPID\nexec /run/cryptsetup.real "$@"\n' > /run/wrapper
chmod +x /run/wrapper
mount --bind /run/wrapper /usr/sbin/cryptsetup
echo
for when in luksAddKey luksKillSlot; do
    echo "=== $when"
    echo $when > /run/when
    fails cryptpilot rotate data1
    slots first second
done
echo "=== again"
echo never > /run/when
cryptpilot rotate data1
cryptpilot open data1
""").check()
    told = parts(result)
    interrupted = "cryptpilot: interrupted\nstatus 130\n"
    assert told["luksAddKey"] == f"{interrupted}slot: first\nslot: second\nslots: 2"
    assert told["luksKillSlot"] == f"{interrupted}slot: second\nslots: 1"
    assert "data1: /dev/disk/by-id/virtio-d1 has nothing to rotate" in told["again"]
    assert told["again"].endswith("data1: /dev/mapper/data1 is open")


def test_a_secret_that_needs_stretching_is_rotated_too(tree: Path, tmp_path: Path) -> None:
    first, second = (base64.b64encode(text).decode() for text in (b"correct horse", b"battery staple"))
    bench = Bench(tree, tmp_path, first)
    result = bench.run(f"""
sed -i /makefs/d /etc/cryptpilot/volumes/data1.toml
cryptpilot init data1 --yes
cp {machines.KMS_FILES}/secret {machines.KMS_FILES}/previous
printf %s {second} > {machines.KMS_FILES}/secret
cryptpilot rotate data1
cryptsetup luksDump {DEVICE} | grep PBKDF:
cryptpilot open data1
""").check()
    assert "is rotated: only the current value of its secret opens it now" in result.stdout
    assert re.findall(r"PBKDF: +(\w+)", result.stdout) == ["argon2id"]
    assert "data1: /dev/mapper/data1 is open\n" in result.stdout
