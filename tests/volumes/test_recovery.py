"""The way back: recovery keys, and backups of headers, from beginning to end."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from tests import machines
from tests.lab.disk import Disk, blank_disk
from tests.lab.uml import run_uml

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.uml import UmlResult

SIZE = 48 << 20
KEY = re.compile(r"([cbdefghijklnrtuv]{8}-){8}[cbdefghijklnrtuv]{8}")
GOOD = "a machine says what it is to say"

# Runs what must fail, and shows what it said and its exit status.
TOOLS = """
fails() { status=0; "$@" 2>&1 || status=$?; echo "status $status"; [ $status != 0 ]; }
heading() { echo "=== $*"; }
"""


def run(tree: Path, disks: list[Disk], script: str) -> dict[str, str]:
    """Run a script where each disk is an exec volume of its name; return what it said, by the headings in it."""
    files = "".join(machines.exec_volume(disk.name, disk.device) for disk in disks)
    result: UmlResult = run_uml(tree, f"{machines.NO_VOLUMES}{files}{TOOLS}{script}", disks=disks).check()
    _, *parts = re.split(r"^=== (.+)\n", result.stdout, flags=re.MULTILINE)
    assert result.stderr == ""
    return dict(zip(parts[::2], parts[1::2]))


def disks(work: Path, *names: str) -> list[Disk]:
    return [Disk(blank_disk(work / f"{name}.img", SIZE), name) for name in names]


def shown(text: str) -> dict[str, Any]:
    """Return the one record of a `show --json`."""
    (record,) = json.loads(text)
    found: dict[str, Any] = record
    return found


def test_the_life_of_a_recovery_key(tree: Path, tmp_path: Path) -> None:
    """From the moment it is enrolled the key provider is not there any more, but for --replace."""
    said = run(
        tree,
        disks(tmp_path, "a", "b"),
        """
cryptpilot init a b --yes > /dev/null
heading none yet
cryptpilot show a --json
heading enroll
cryptpilot recovery-key a > /run/first 2> /run/said; cat /run/said
heading key
cat /run/first
heading shown closed
cryptpilot show a --json
heading table
cryptpilot show a
heading twice
fails cryptpilot recovery-key a
heading nothing can be printed
status=0; cryptpilot recovery-key b 2>&1 > /dev/full || status=$?; echo "status $status"
heading not shown
# its file system is full, which only a byte that is written finds out
mkdir /run/full; mount -t tmpfs -o size=4k full /run/full; touch /run/full/out
head -c 4096 /dev/zero > /run/full/all
status=0; cryptpilot recovery-key b 2>&1 > /run/full/out || status=$?; echo "status $status"
cryptsetup luksDump /dev/disk/by-id/virtio-b | grep -cE "^  [0-9]: (luks2|systemd-recovery)"
# a token that is wrong, as somebody's own slip may have left it
cryptsetup token import --json-file=- /dev/disk/by-id/virtio-b <<< '{"type":"systemd-recovery","keyslots":["0"]}'
cryptpilot recovery-key b --replace > /dev/null 2>&1
cryptpilot open b
cryptpilot close b
heading other tools
cryptsetup luksDump --dump-json-metadata /dev/disk/by-id/virtio-a; echo
mv /run/key /run/key.gone
heading provider is gone
fails cryptpilot open a
heading opened
cryptpilot open a --recovery-key < /run/first
heading again
cryptpilot open a --recovery-key < /dev/null
heading shown open
cryptpilot show a --json
heading close
cryptpilot close a
heading loosely typed
{ tr -d '\\n' < /run/first | tr a-z- 'A-Z '; printf '\\nnext line\\n'; } > /run/loose
{ cryptpilot open a --recovery-key --check-fs; cat; } < /run/loose
cryptpilot close a
heading plain
head -c -1 /run/first | cryptsetup open --test-passphrase --key-file=- --verbose /dev/disk/by-id/virtio-a
heading mistyped
sed 's/./x/20' /run/first > /run/slip
fails cryptpilot open a --recovery-key < /run/slip
heading of another
fails cryptpilot open b --recovery-key < /run/first
heading nothing typed
fails cryptpilot open a --recovery-key < /dev/null
heading only one
fails cryptpilot open a b --recovery-key
heading cannot enroll
fails cryptpilot recovery-key b --replace
mv /run/key.gone /run/key
heading replace
cryptpilot open a
cryptpilot recovery-key a --replace 2>&1 > /run/second
cryptpilot close a
heading interrupted
# in the middle of its work, by whoever presses Ctrl-C
program=$(readlink -f /usr/sbin/cryptsetup); cp $program /run/cryptsetup.real
printf '#!/bin/sh\n[ $1 != luksAddKey ] || kill -INT $PPID\nexec /run/cryptsetup.real "$@"\n' > /run/cryptsetup.sh
chmod +x /run/cryptsetup.sh; mount --bind /run/cryptsetup.sh $program
status=0; cryptpilot recovery-key b --replace 2>&1 > /run/third || status=$?; echo "status $status"
umount $program
cryptpilot open b --recovery-key < /run/third
cryptpilot recovery-key b --replace 2>&1 > /dev/null
heading old is void
fails cryptpilot open a --recovery-key < /run/first
heading new opens
cryptpilot open a --recovery-key < /run/second
cryptpilot close a
heading left in the header
cryptsetup luksDump --dump-json-metadata /dev/disk/by-id/virtio-a; echo
heading own secret
cryptpilot open a
""",
    )
    key = said["key"].strip()
    assert KEY.fullmatch(key)
    assert said["enroll"].splitlines() == [
        "cryptpilot: write it down, or print it, and keep it away from this machine: it is not shown again",
        "cryptpilot: a: its recovery key opens it from now on",
    ]
    known = [shown(said[name])["recovery_key"] for name in ("none yet", "shown closed", "shown open")]
    assert known == [False, True, True]
    assert "makefs=ext4, recovery key" in said["table"]
    assert "a: has a recovery key already" in said["twice"]
    assert "cryptpilot recovery-key a --replace" in said["twice"]

    metadata = json.loads(said["other tools"])
    (token,) = metadata["tokens"].values()
    assert re.fullmatch("[0-9a-f]{64}", token.pop("cryptpilot_mac"))
    assert token == {"type": "systemd-recovery", "keyslots": ["1"]}
    assert [metadata["keyslots"][slot]["kdf"]["type"] for slot in "01"] == ["pbkdf2", "pbkdf2"]
    assert metadata["keyslots"]["1"]["kdf"]["iterations"] == 1000

    cannot = "standard output cannot be written, where the recovery key would be printed: No space left on device"
    assert said["nothing can be printed"].splitlines() == [
        f"cryptpilot: error: {cannot}",
        "cryptpilot:   nothing was changed; redirect it to where you keep the key",
        "status 1",
    ]
    assert said["not shown"].splitlines() == [
        "cryptpilot: error: b: the recovery key could not be shown: No space left on device",
        "cryptpilot:   it was removed again; nothing has changed",
        "status 1",
        "1",
        "b: /dev/mapper/b is open",
        "b: /dev/mapper/b is closed",
    ]
    assert "No such file" in said["provider is gone"]
    assert said["opened"] == "a: /dev/mapper/a is open\n"
    assert said["again"] == "a: /dev/mapper/a was open already\n"
    assert said["loosely typed"].splitlines() == ["a: /dev/mapper/a is open", "next line", "a: /dev/mapper/a is closed"]
    assert "Key slot 1 unlocked" in said["plain"]

    assert "error: the recovery key is mistyped: look at group 3\n" in said["mistyped"]
    assert (
        "error: b: this recovery key does not open /dev/disk/by-id/virtio-b: no key slot takes it" in said["of another"]
    )
    assert "error: nothing was typed" in said["nothing typed"]
    assert "--recovery-key is of one volume\nstatus 2\n" in said["only one"]
    assert "No such file" in said["cannot enroll"]

    assert "its recovery key opens it from now on; 1 older one was revoked" in said["replace"]
    assert said["interrupted"].splitlines() == [
        "cryptpilot: write it down, or print it, and keep it away from this machine: it is not shown again",
        "cryptpilot: interrupted",
        "status 130",
        "b: /dev/mapper/b is open",
        "cryptpilot: write it down, or print it, and keep it away from this machine: it is not shown again",
        "cryptpilot: b: its recovery key opens it from now on; 2 older ones were revoked",
    ]
    assert "no key slot takes it" in said["old is void"]
    assert said["new opens"].startswith("a: /dev/mapper/a is open\n")
    metadata = json.loads(said["left in the header"])
    assert sorted(metadata["keyslots"]) == ["0", "2"]
    (token,) = metadata["tokens"].values()
    assert re.fullmatch("[0-9a-f]{64}", token.pop("cryptpilot_mac"))
    assert token == {"type": "systemd-recovery", "keyslots": ["2"]}
    assert said["own secret"] == "a: /dev/mapper/a is open\n"
    assert not any(key in text for name, text in said.items() if name != "key")


WIPE = "dd if=/dev/zero of=/dev/disk/by-id/virtio-{} bs=1M count=16 conv=notrunc,fsync status=none"
SPOIL = "dd if=/dev/urandom of=/dev/disk/by-id/virtio-{} bs=1M count=8 conv=notrunc,fsync status=none"
HASH = "sha256sum < /dev/disk/by-id/virtio-{}"
IS_READ = "cryptpilot open {0} && mount /dev/mapper/{0} /mnt && cat /mnt/file && umount /mnt && cryptpilot close {0}"


def test_a_header_is_saved_lost_and_put_back(tree: Path, tmp_path: Path) -> None:
    said = run(
        tree,
        disks(tmp_path, "a", "b"),
        f"""
sed -i 's/integrity = false/integrity = true/' /etc/cryptpilot/volumes/b.toml
cryptpilot init a b --yes > /dev/null
cryptpilot open a b > /dev/null
for name in a b; do mount /dev/mapper/$name /mnt; echo kept on $name > /mnt/file; umount /mnt; done
cryptpilot recovery-key a 2> /dev/null > /run/way-back
cryptpilot recovery-key b 2> /dev/null > /run/of-another
heading backup
cd /run
umask 0
cryptpilot header backup a a.header
cryptpilot header backup b /run/b.header > /dev/null
stat --format "%a %s" /run/a.header
heading no second
fails cryptpilot header backup a a.header
heading no place
fails cryptpilot header backup a /nowhere/a.header
heading while open
fails cryptpilot header restore a a.header --yes
heading spoiled while open
{SPOIL.format("b")}
cryptpilot show b --json
cryptpilot close a b > /dev/null
heading unasked
fails cryptpilot header restore a a.header
heading whole
cryptpilot header restore a a.header --yes
{IS_READ.format("a")}
heading gone
{WIPE.format("a")}
cryptpilot show a --json
fails cryptpilot open a
heading put back
cryptpilot header restore a a.header --yes
{IS_READ.format("a")}
heading spoiled
{SPOIL.format("a")}
fails cryptpilot open a
mv /run/key /run/key.gone
heading no provider
fails cryptpilot header restore a a.header --yes
heading another recovery key
fails cryptpilot header restore a a.header --yes --recovery-key < /run/of-another
heading damaged file
head -c 40000 a.header > cut.header
fails cryptpilot header restore a cut.header --yes
heading put back by recovery key
cryptpilot header restore a a.header --yes --recovery-key < /run/way-back
cryptpilot open a --recovery-key < /run/way-back; cryptpilot close a
mv /run/key.gone /run/key
heading half
dd if=/dev/zero of=/dev/disk/by-id/virtio-a bs=4096 count=1 conv=notrunc,fsync status=none
cryptpilot header restore a a.header --yes
{IS_READ.format("a")}
heading integrity
cryptpilot header restore b b.header --yes
{IS_READ.format("b")}
""",
    )
    assert said["backup"].startswith("a: its header is in /run/a.header: ")
    assert said["backup"].endswith("\n400 16777216\n")
    assert "error: a: /run/a.header: is there already" in said["no second"]
    assert "/nowhere/a.header" in said["no place"]
    assert "error: a: is open" in said["while open"]
    spoiled = shown(said["spoiled while open"])
    assert (spoiled["status"], spoiled["recovery_key"]) == ("opened", None)
    assert spoiled["detail"] == "/dev/disk/by-id/virtio-b: the LUKS2 header is damaged: no copy of it is whole"
    assert "give --yes" in said["unasked"]
    put_back = (
        "a: its header is put back, with the secrets and recovery keys of when it was saved;"
        " open it with: cryptpilot open a\n"
    )
    for name in ("whole", "put back", "half"):
        assert said[name].startswith(put_back), said[name]
        assert "\nkept on a\n" in said[name]
    assert '"status": "requires-init"' in said["gone"]
    assert "is not initialized: it holds nothing" in said["gone"]
    assert "cryptpilot header restore a FILE" in said["gone"]
    assert "cryptpilot header restore a FILE" in said["spoiled"]
    assert "No such file" in said["no provider"]
    assert "error: a: no key slot in /run/a.header takes this recovery key, so " in said["another recovery key"]
    assert "error: a: /run/cut.header is no whole backup: " in said["damaged file"]
    assert said["put back by recovery key"] == f"{put_back}a: /dev/mapper/a is open\na: /dev/mapper/a is closed\n"
    assert "\nkept on b\n" in said["integrity"]


def test_what_is_said_to_be_a_backup_is_one_and_any_file_may_be_named(tree: Path, tmp_path: Path) -> None:
    """On a file system without hard links too, and where several runs want one name."""
    said = run(
        tree,
        disks(tmp_path, "a", "b"),
        """
cryptpilot init a b --yes > /dev/null
cryptpilot header backup a /run/a.header > /dev/null
heading on a stick
modprobe -a loop vfat nls_cp437 nls_ascii
truncate -s 40M /run/stick; mkfs.vfat /run/stick > /dev/null
mkdir /run/usb; mount -o loop,iocharset=ascii /run/stick /run/usb
cryptpilot header backup a /run/usb/a.header
fails cryptpilot header backup b /run/usb/a.header
cmp /run/usb/a.header /run/a.header && ls -A /run/usb
fails ln /run/usb/a.header /run/usb/b.header
umount /run/usb
heading side by side
for name in a b; do cryptpilot header backup $name /run/one.header > /run/run.$name 2>&1 & done; wait
cat /run/run.?
first=$(sed -n 's/: its header is in .*//p' /run/run.?)
head -c 16M /dev/disk/by-id/virtio-$first | cmp - /run/one.header
ls -A /run/one.header /run/.cryptpilot-* 2> /dev/null || true
heading not a file
mkfifo /run/pipe
for file in /dev/zero /run/pipe; do fails cryptpilot header restore a $file --yes; done
heading from a disk
cat /run/a.header > /run/kept; losetup /dev/loop7 /run/kept
cryptpilot header restore a /dev/loop7 --yes
losetup --detach /dev/loop7
""",
    )
    assert said["on a stick"].startswith("a: its header is in /run/usb/a.header: ")
    stick = said["on a stick"].splitlines()[1:]
    assert stick[0] == "cryptpilot: error: b: /run/usb/a.header: is there already, and no backup is overwritten"
    assert stick[2:4] == ["status 1", "a.header"]  # whole, alone, and still a's
    assert "Operation not permitted" in stick[4]
    assert said["side by side"].count(": its header is in /run/one.header: ") == 1
    assert said["side by side"].count(": /run/one.header: is there already") == 1
    assert said["side by side"].endswith("\n/run/one.header\n")
    for name in ("/dev/zero", "/run/pipe"):
        assert (
            f"error: a: {name}: is not a backup of a header: it is neither file nor block device" in said["not a file"]
        )
    assert said["from a disk"].startswith("a: its header is put back")


def test_nothing_is_put_where_it_is_not_proven_to_belong(tree: Path, tmp_path: Path) -> None:
    """The secret is the same for all: that a backup opens proves nothing."""
    said = run(
        tree,
        disks(tmp_path, "a", "b"),
        f"""
cryptpilot init a b --yes > /dev/null
rm -r /etc/cryptpilot/identities  # as of volumes that are not bound: the header alone has to tell
for name in a b; do cryptpilot header backup $name /run/$name.header > /dev/null; done
cd /run
A=/dev/disk/by-id/virtio-a
try() {{
    before=$({HASH.format("a")})
    fails cryptpilot header restore a "$@" --yes
    [ "$before" = "$({HASH.format("a")})" ]
}}
luks_format() {{
    cryptsetup luksFormat --batch-mode --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file key "$@"
}}
for name in a b; do cryptsetup luksUUID /dev/disk/by-id/virtio-$name; done > /run/uuids
heading uuids
cat uuids
heading of another
try b.header --force
heading no header
echo nothing > no.header; try no.header
heading no file
try not-there
heading no mark
truncate -s 32M other.header
luks_format other.header
try other.header
heading changed
# a backup that somebody kept for us: the data not encrypted, and a checksum that is right
cp a.header changed.header; chmod 600 changed.header
cryptsetup token import --json-file - changed.header <<< '{{"type":"x","keyslots":[]}}'
perl -e '
    use Digest::SHA "sha256"; open(my $file, "+<", "changed.header"); binmode $file; read($file, my $all, 1 << 15);
    for my $at (0, 1 << 14) {{
        my $copy = substr($all, $at, 1 << 14);
        $copy =~ s/aes-xts-plain64(",\\s*"sector_size)/cipher_null-ecb$1/ or die;
        substr($copy, 0x1C0, 64) = "\\0" x 64; substr($copy, 0x1C0, 32) = sha256($copy);
        seek($file, $at, 0); print $file $copy;
    }}'
try changed.header
heading older than the secret
cp key key.then
head -c 64 /dev/urandom > key.now
cryptsetup luksAddKey -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file key.then $A key.now
cryptsetup luksRemoveKey -q $A key.then
cp key.now key
try a.header
cp key.then key
cryptpilot header restore a a.header --yes
{WIPE.format("a")}
heading lost and of another
try b.header
heading lost and another secret
mv key key.gone; head -c 64 /dev/zero > key; try a.header; mv key.gone key
heading something in its place
mkswap -q /dev/disk/by-id/virtio-a; try a.header
cryptpilot header restore a a.header --yes --overwrite swap
cryptpilot open a
cryptpilot close a
heading initialized anew
cryptpilot init a --yes --force-reinit > /dev/null
try a.header --force
heading forced
luks_format --subsystem cryptpilot /dev/disk/by-id/virtio-b
rm b.header; cryptpilot header backup b b.header > /dev/null
{WIPE.format("b")}
fails cryptpilot header restore b b.header --yes
cryptpilot header restore b b.header --yes --force
cryptpilot open b
""",
    )
    one, other = said["uuids"].split()
    assert (
        f"of another volume (UUID {other}) than the one on /dev/disk/by-id/virtio-a (UUID {one})" in said["of another"]
    )
    for name in ("no header", "no mark"):
        assert "is not a backup of the header of a cryptpilot volume" in said[name]
    assert "not-there: cannot be read: No such file" in said["no file"]
    assert "is not to be trusted: a data segment: encryption is not aes-xts-plain64" in said["changed"]
    assert "a.header is older than the secret: none of its key slots takes the secret" in said["older than the secret"]
    assert "its header is put back" in said["older than the secret"]
    assert (
        "is not proven to belong to /dev/disk/by-id/virtio-a: opened by it, there is no file system"
        in said["lost and of another"]
    )
    assert "no key slot in it takes this secret" in said["lost and another secret"]
    assert (
        "virtio-a holds data of type swap, of which the first 16 MiB would be overwritten"
        in said["something in its place"]
    )
    assert said["something in its place"].endswith("a: /dev/mapper/a is open\na: /dev/mapper/a is closed\n")
    assert f"(UUID {one})" in said["initialized anew"]
    assert "is of another volume" in said["initialized anew"]
    assert "there is no file system" in said["forced"]
    assert said["forced"].endswith("b: /dev/mapper/b is open\n")


def test_only_a_key_slot_that_is_proven_to_take_a_recovery_key_is_removed(tree: Path, tmp_path: Path) -> None:
    """A token is the disk's word: this one names a key slot that the operator made, with a passphrase of his own."""
    said = run(
        tree,
        disks(tmp_path, "a"),
        """
disk=/dev/disk/by-id/virtio-a
cryptpilot init a --yes > /dev/null
printf operator > /run/operator
cryptsetup luksAddKey --batch-mode --pbkdf=pbkdf2 --pbkdf-force-iterations=1000 --key-file=/run/key $disk /run/operator
cryptsetup token import --json-file=- $disk <<< '{"type":"systemd-recovery","keyslots":["1"]}'
cryptpilot recovery-key a --replace > /run/first 2> /run/said
heading first
cat /run/said
mac=$(cryptsetup luksDump --dump-json-metadata $disk | grep -o '"cryptpilot_mac": *"[0-9a-f]*"')
printf '{"type":"systemd-recovery","keyslots":["1"],%s}' "$mac" | cryptsetup token import --json-file=- $disk
cryptpilot recovery-key a --replace > /run/second 2> /run/said
heading second
cat /run/said
heading opens
for key in operator second first; do
    tr -d '\n' < /run/$key > /run/try
    status=0; cryptsetup open --test-passphrase --key-file=/run/try $disk 2> /dev/null || status=$?
    echo "$key $status"
done
""",
    )
    left = "key slot 1 was left: the header says that it takes an older recovery key, and nothing proves that"
    assert left in said["first"]
    assert "its recovery key opens it from now on; 1 older one was revoked; " + left in said["second"]
    # by the key, not by the number: that is what a token says, and this one names the operator's slot
    assert "if you have that key: cryptsetup luksRemoveKey /dev/disk/by-id/virtio-a; if not: " in said["second"]
    assert "luksKillSlot" not in said["first"] + said["second"]
    assert said["opens"] == "operator 0\nsecond 0\nfirst 2\n"
