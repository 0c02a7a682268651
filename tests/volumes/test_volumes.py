"""Volumes on real dm-crypt: the installed command, in user-mode Linux, with its KMS.

Each test is a machine; its script is what an administrator would type, and its disks are looked at from outside.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests import machines
from tests.lab.disk import Disk, blank_disk, sha256

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.uml import UmlResult

SIZE = 64 << 20


class Bench:
    """A machine's disks and configuration, and what runs commands on them."""

    def __init__(self, site: machines.Site, tree: Path, work: Path) -> None:
        self.site = site
        self.tree = tree
        self.disks = [Disk(blank_disk(work / f"{name}.img", SIZE), name) for name in ("d0", "d1")]

    def run(self, script: str, **changes: str) -> UmlResult:
        """Run a script where `data0` is an OTP volume on disk d0 and `data1` a KMS volume on disk d1."""
        return machines.run_with_kms(self.site, self.tree, self._configured(**changes) + script, disks=self.disks)

    def digests(self) -> list[str]:
        """Return the digests of the disks."""
        return [sha256(disk.path) for disk in self.disks]

    def _configured(self, data0: str = "", data1: str = "") -> str:
        otp = f'volume = "data0"\ndev = "{self.disks[0].device}"\nmakefs = "ext4"\n[encrypt.otp]\n'
        kms = machines.volume_file(self.site, volume="data1", dev=self.disks[1].device)
        return f"""
rm -f /etc/cryptpilot/volumes/*
umask 077
cat > /etc/cryptpilot/volumes/data0.toml << 'EOF'
{data0 or otp}
EOF
cat > /etc/cryptpilot/volumes/data1.toml << 'EOF'
{data1 or kms}
EOF
# Runs what must fail, and shows what it said.
refused() {{ ! "$@" 2>&1 || {{ echo "NOT REFUSED: $*"; exit 1; }}; }}
"""

    def kms_file(self, **changes: str) -> str:
        """Return data1's file, with keys set before the [encrypt.kms] section."""
        text = machines.volume_file(self.site, volume="data1", dev=self.disks[1].device)
        for key, value in changes.items():
            text = text.replace("auto_open = true\n", f"auto_open = true\n{key} = {value}\n")
        return text


@pytest.fixture
def bench(site: machines.Site, tree: Path, tmp_path: Path) -> Bench:
    site.behave("ok")
    site.forget_requests()
    return Bench(site, tree, tmp_path)


def metadata(result: UmlResult) -> dict[str, Any]:
    """Return the LUKS2 metadata a script ended with (`luksDump --dump-json-metadata`)."""
    found: dict[str, Any] = json.loads(result.stdout[result.stdout.index("{") :])
    return found


DUMP = "cryptsetup luksDump --dump-json-metadata /dev/disk/by-id/virtio-d1\n"


def test_a_persistent_volume_keeps_what_is_written_to_it(bench: Bench) -> None:
    result = bench.run("""
cryptpilot show --json data1
cryptpilot init data1 --yes
cryptpilot show data1
cryptpilot open data1
cryptpilot open data1
mount /dev/mapper/data1 /mnt
echo "secret data" > /mnt/data.txt
refused cryptpilot close data1
umount /mnt
cryptpilot close data1
cryptpilot close data1
cryptpilot open data1
mount /dev/mapper/data1 /mnt
cat /mnt/data.txt
umount /mnt
cryptpilot show data1
""").check()
    before, _, rest = result.stdout.partition("]\n")
    (record,) = json.loads(before + "]")
    assert (record["initialized"], record["opened"], record["status"]) == (False, False, "requires-init")
    after_init, _, rest = rest.partition("data1: /dev/mapper/data1 is open\n")
    assert "True         False   ready-to-open" in after_init
    assert rest.startswith("data1: /dev/mapper/data1 was open already\n")
    assert "cannot be closed: cryptsetup: Device data1 is still in use." in rest
    assert "data1: /dev/mapper/data1 is closed\ndata1: /dev/mapper/data1 was closed already\n" in rest
    assert "\nsecret data\n" in rest
    assert "True         True    opened" in rest
    # once for init, and once for each open that had something to open
    assert [request["outcome"] for request in bench.site.requests()] == ["ok"] * 3


def test_key_material_is_not_stretched_and_the_cipher_is_aes_256(bench: Bench) -> None:
    found = metadata(bench.run("cryptpilot init data1 --yes\n" + DUMP).check())
    (slot,) = found["keyslots"].values()
    (segment,) = found["segments"].values()
    assert (slot["kdf"]["type"], slot["kdf"]["hash"], slot["kdf"]["iterations"]) == ("pbkdf2", "sha256", 1000)
    assert (slot["key_size"], segment["encryption"], segment["sector_size"]) == (64, "aes-xts-plain64", 4096)


def test_what_a_person_could_remember_is_stretched(bench: Bench, tmp_path: Path) -> None:
    words = "correct horse battery staple, and then some more of them"
    weak = machines.make_site(tmp_path / "weak", base64.b64encode(words.encode()).decode())
    bench = Bench(weak, bench.tree, tmp_path)
    result = bench.run(
        f"cryptpilot init data1 --yes\nprintf '%s' '{words}' > /run/words\n"
        + """
cryptsetup open --test-passphrase --key-file /run/words /dev/disk/by-id/virtio-d1
"""
        + DUMP
    ).check()
    (slot,) = metadata(result)["keyslots"].values()
    assert slot["kdf"]["type"] == "argon2id"


def test_the_passphrase_is_the_decoded_secret(bench: Bench) -> None:
    bench.run("cryptpilot init data1 --yes").check()
    bench.run(f"""
base64 -d <<< '{bench.site.secret}' > /run/key
cryptsetup open --test-passphrase --key-file /run/key /dev/disk/by-id/virtio-d1
""").check()


def test_a_temporary_volume_is_new_at_each_open(bench: Bench) -> None:
    result = bench.run("""
cryptpilot show data0
cryptpilot open data0
mount /dev/mapper/data0 /mnt
touch /mnt/scratch
ls /mnt
umount /mnt
cryptpilot close data0
cryptpilot open data0
mount /dev/mapper/data0 /mnt
ls /mnt
umount /mnt
refused cryptpilot init data0 --yes
""").check()
    assert "Not required  False   ready-to-open" in result.stdout
    assert result.stdout.count("scratch") == 1
    assert result.stdout.count("lost+found") == 2
    assert "cryptpilot: error: data0: needs no init: it is temporary" in result.stdout
    assert bench.site.requests() == []


PREPARATIONS = {
    "a file system": ("mkfs.ext4 -q {device}", "holds data of type ext4"),
    # one Linux partition of 4096 sectors from sector 2048 on
    "a partition table": (
        r"""
printf '\0\2\0\0\x83\0\0\0\0\x08\0\0\0\x10\0\0' | dd of={device} bs=1 seek=446 conv=notrunc status=none
printf '\x55\xaa' | dd of={device} bs=1 seek=510 conv=notrunc status=none
""",
        "holds data of type dos",
    ),
    "somebody else's LUKS": (
        "echo x | cryptsetup luksFormat -q --pbkdf pbkdf2 {device} -",
        "holds a LUKS2 header of another program",
    ),
    "a mounted file system": ("mkfs.ext4 -q {device}; mount -o ro {device} /mnt", "is in use"),
    "another mapping on it": ("dmsetup create other --table '0 2048 linear {device} 0'", "is in use"),
}


@pytest.mark.parametrize("prepared", PREPARATIONS)
def test_a_device_that_holds_something_is_left_alone(bench: Bench, prepared: str) -> None:
    """Whether or not --yes is said."""
    prepare, said = PREPARATIONS[prepared]
    device = bench.disks[1].device
    result = bench.run(f"""
{prepare.format(device=device)}
sync; sha256sum {device}
refused cryptpilot init data1 --yes
sync; sha256sum {device}
""").check()
    assert said in result.stdout
    before, after = re.findall(r"^[0-9a-f]{64}", result.stdout, re.MULTILINE)
    assert before == after
    assert bench.site.requests() == []


def test_a_temporary_volume_never_takes_the_place_of_anything(bench: Bench) -> None:
    """Not of a foreign file system, and not of a persistent volume either, should `dev` name the wrong disk."""
    wrong = f'volume = "data0"\ndev = "{bench.disks[1].device}"\nmakefs = "ext4"\n[encrypt.otp]\n'
    elsewhere = replace(bench.disks[1], name="d0").device
    bench.run("cryptpilot init data1 --yes\nmkfs.ext4 -q /dev/disk/by-id/virtio-d0").check()
    before = bench.digests()
    foreign = bench.run("refused cryptpilot open data0; cryptpilot show data0").check()
    ours = bench.run(
        "refused cryptpilot open data0", data0=wrong, data1=bench.kms_file().replace(bench.disks[1].device, elsewhere)
    ).check()
    assert "holds data of type ext4, which this temporary volume did not put there" in foreign.stdout
    assert "check-failed" in foreign.stdout
    assert "holds an initialized cryptpilot volume, which this temporary volume did not put there" in ours.stdout
    assert bench.digests() == before


def test_an_initialized_volume_is_not_initialized_again(bench: Bench) -> None:
    bench.run("cryptpilot init data1 --yes").check()
    before = bench.digests()
    result = bench.run("refused cryptpilot init data1 --yes").check()
    assert "is initialized already" in result.stdout
    assert bench.digests() == before


def test_nothing_is_formatted_without_a_yes(bench: Bench) -> None:
    before = bench.digests()
    result = bench.run("refused cryptpilot init data1").check()
    assert "there is no terminal to ask for confirmation on" in result.stdout
    assert bench.digests() == before
    assert bench.site.requests() == []


def test_an_init_that_was_interrupted_is_told_and_can_be_run_again(bench: Bench) -> None:
    result = bench.run("""
cryptpilot init data1 --yes
cryptsetup config --subsystem cryptpilot-initializing /dev/disk/by-id/virtio-d1
cryptpilot show data1
refused cryptpilot open data1
cryptpilot init data1 --yes
cryptpilot open data1
""").check()
    assert "initializing: init was interrupted; run it again" in result.stdout
    assert "is not completely initialized: init was interrupted" in result.stdout
    assert "run it again: cryptpilot init data1" in result.stdout
    assert result.stdout.endswith("data1: /dev/mapper/data1 is open\n")


def test_a_header_says_initializing_until_the_file_system_is_complete(bench: Bench) -> None:
    """A mkfs that fails is the same to the header as a power cut during it."""
    result = bench.run("""
echo 'exit 1' > /run/mkfs.ext4; chmod +x /run/mkfs.ext4
mount --bind /run/mkfs.ext4 $(readlink -f /usr/sbin/mkfs.ext4)
refused cryptpilot init data1 --yes
cryptpilot show data1
ls /dev/mapper
""").check()
    assert "initializing: init was interrupted" in result.stdout
    assert "data1-initializing" not in result.stdout.splitlines()


def test_what_a_killed_init_left_open_is_closed_by_the_next(bench: Bench) -> None:
    """A process that is killed closes nothing: neither its mapping nor the mark in the header."""
    result = bench.run("""
printf '#!/bin/sh\\nkill -9 $PPID\\n' > /run/mkfs.ext4; chmod +x /run/mkfs.ext4
mount --bind /run/mkfs.ext4 $(readlink -f /usr/sbin/mkfs.ext4)
cryptpilot init data1 --yes || echo "killed: $?"
ls /dev/mapper
umount $(readlink -f /usr/sbin/mkfs.ext4)
cryptpilot show data1
cryptpilot init data1 --yes
cryptpilot open data1
ls /dev/mapper
""").check()
    _, _, rest = result.stdout.partition("killed: 137\n")
    assert rest.splitlines()[:2] == ["control", "data1-initializing"]
    assert "initializing: init was interrupted" in rest
    assert rest.splitlines()[-2:] == ["control", "data1"]


def test_what_a_command_writes_is_the_passphrase(bench: Bench) -> None:
    """Beside a file that cannot be used, which keeps no volume from being opened."""
    command = 'command = "cat"\nargs = ["/run/key"]\n'
    result = bench.run(
        """
head -c 64 /dev/urandom > /run/key
cryptpilot init data1 --yes
echo 'volume = 3' > /etc/cryptpilot/volumes/broken.toml
cryptpilot open data1 || echo "opened: $?"
cryptpilot close data1 || echo "closed: $?"
cryptsetup open --test-passphrase --key-file /run/key /dev/disk/by-id/virtio-d1
"""
        + DUMP,
        data1=f'volume = "data1"\ndev = "{bench.disks[1].device}"\n[encrypt.exec]\n{command}',
    ).check()
    assert "data1: /dev/mapper/data1 is open\nopened: 2\n" in result.stdout
    assert "data1: /dev/mapper/data1 is closed\nclosed: 2\n" in result.stdout
    (slot,) = metadata(result)["keyslots"].values()
    assert slot["kdf"]["type"] == "pbkdf2"
    assert bench.site.requests() == []


def test_a_mapping_that_is_none_of_ours_is_not_taken_for_the_open_volume(bench: Bench) -> None:
    """A plain mapping of the volume's own device would show everything written to it in clear."""
    result = bench.run("""
cryptpilot init data1 --yes
dmsetup create data1 --table "0 2048 linear /dev/disk/by-id/virtio-d1 0"
refused cryptpilot open data1
cryptpilot show data1
""").check()
    assert "/dev/mapper/data1 exists, but is not an encrypted mapping of" in result.stdout
    assert "False        False   check-failed" in result.stdout


def test_the_wrong_secret_says_so(bench: Bench) -> None:
    bench.run("cryptpilot init data1 --yes").check()
    before = bench.digests()
    bench.site.behave("wrong-secret")
    result = bench.run("refused cryptpilot open data1").check()
    assert "the secret does not open /dev/disk/by-id/virtio-d1: no key slot takes it" in result.stdout
    assert bench.digests() == before


def test_no_child_sees_the_secret_in_its_arguments_or_environment(bench: Bench) -> None:
    """strace shows both of every program that is run: init, open and close of a volume."""
    result = bench.run("""
trace="strace --follow-forks --quiet=all --trace=execve --no-abbrev --string-limit=65536 --output=/run/trace"
for verb in "init data1 --yes" "open data1" "close data1"; do $trace -A cryptpilot $verb; done
cat /run/trace
""").check()
    assert result.stdout.count('"luksFormat"') >= 1
    assert result.stdout.count('"open"') >= 2
    assert '"--key-file=-"' in result.stdout
    for what, secret in bench.site.forbidden.items():
        assert secret.decode("latin-1") not in result.stdout, what
