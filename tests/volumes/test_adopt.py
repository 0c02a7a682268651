"""Volumes that another program made: what is said of them, and adopting them with all their data.

They are made as that program makes them, with cryptsetup and mkfs alone. What the existing Rust implementation up to
0.3.2 makes has libcryptsetup's defaults (see test_releases.py for those) and no mark.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests import machines
from tests.lab.disk import Disk, blank_disk
from tests.lab.tree import RELEASES
from tests.lab.uml import run_uml

if TYPE_CHECKING:
    from pathlib import Path

_FAST = "--pbkdf-memory=8192 --pbkdf-force-iterations=4 --pbkdf-parallel=2"
FORMAT = "cryptsetup luksFormat --batch-mode --type=luks2 --cipher=aes-xts-plain64 --key-size=512 --key-file=/run/key"
QUICK = f"{FORMAT} --pbkdf=pbkdf2 --pbkdf-force-iterations=1000"
SIZE = 64 << 20


@dataclass(frozen=True)
class Made:
    """A way to make a volume. make: shell lines, {device}. integrity: whether it has tags. inside: what is adopted."""

    make: str
    integrity: bool = False
    inside: str = "data of type ext4"


_FILL = """
cryptsetup open --key-file=/run/key {device} making; mkfs.ext4 -q /dev/mapper/making
mount /dev/mapper/making /mnt; echo "kept by {name}" > /mnt/file; umount /mnt; cryptsetup close making
"""
MADE = {
    "guide": Made(f"{FORMAT} --pbkdf=argon2id {_FAST} --sector-size=512 {{device}}{_FILL}"),
    "older": Made(f"{FORMAT} --pbkdf=argon2i {_FAST} --sector-size=512 {{device}}{_FILL}"),
    # with tags, and not wiped: only what mkfs wrote, and what was read beside it, can be read
    "tags": Made(
        f"""{FORMAT} --pbkdf=argon2id {_FAST} --sector-size=4096 --integrity=hmac-sha256 --integrity-no-wipe {{device}}
cryptsetup open --key-file=/run/key {{device}} making; size=$(blockdev --getsize64 /dev/mapper/making)
truncate -s $size /run/{{name}}.img; mkfs.ext4 -q -b 4096 /run/{{name}}.img
dd if=/run/{{name}}.img of=/dev/mapper/making bs=1M count=16 conv=notrunc status=none
dd if=/run/{{name}}.img of=/dev/mapper/making bs=4096 conv=notrunc,sparse status=none
end=$((size / 4096 - 512))
dd if=/run/{{name}}.img of=/dev/mapper/making bs=4096 skip=$end seek=$end conv=notrunc status=none
mount /dev/mapper/making /mnt; echo "kept by {{name}}" > /mnt/file; umount /mnt; cryptsetup close making
""",
        integrity=True,
    ),
    # the same, and nothing was ever written
    "holes": Made(
        f"""{QUICK} --sector-size=4096 --integrity=hmac-sha256 --integrity-no-wipe {{device}}
""",
        integrity=True,
        inside="what cannot be told: /dev/mapper/holes: cannot ",
    ),
    # an installer's: with a label by which others find it, and somebody's mark
    "installer": Made(f"{QUICK} --label='My disk-1' --subsystem=anaconda {{device}}{_FILL}"),
    # clevis: a key slot of its own, and a token that says what opens it
    "clevis": Made(
        f"""{QUICK} {{device}}{_FILL}
head -c 40 /dev/urandom > /run/other
cryptsetup luksAddKey --pbkdf=pbkdf2 --pbkdf-force-iterations=1000 --key-file=/run/key {{device}} /run/other
echo '{{{{"type":"clevis","keyslots":["1"],"jwe":{{{{"ciphertext":"A","protected":"B"}}}}}}}}' |
    cryptsetup token import --json-file=- {{device}}
"""
    ),
    "luks1": Made(
        f"""cryptsetup luksFormat --batch-mode --type=luks1 --pbkdf-force-iterations=1000 --key-file=/run/key {{device}}
{_FILL}"""
    ),
    # whose maker was interrupted
    "bare": Made(f"{QUICK} {{device}}\n", inside="nothing"),
}
HEADING = 'heading() { echo "=== $1 $2"; }\n'


def parts(output: str) -> dict[tuple[str, str], str]:
    """Return what was said below each heading, by its two words."""
    _, *found = re.split(r"^=== (\w+) (\w+)\n", output, flags=re.MULTILINE)
    return {(kind, of): text for kind, of, text in zip(found[::3], found[1::3], found[2::3])}


def test_volumes_of_other_makers_are_adopted_with_their_data(tree: Path, tmp_path: Path) -> None:
    disks = {name: Disk(blank_disk(tmp_path / f"{name}.img", SIZE), name) for name in MADE}
    made = "".join(
        machines.exec_volume(name, disk.device, integrity=MADE[name].integrity)
        + MADE[name].make.format(device=disk.device, name=name)
        for name, disk in disks.items()
    )
    names = " ".join(MADE)
    script = f"""{machines.NO_VOLUMES}{HEADING}{made}
device() {{ echo /dev/disk/by-id/virtio-$1; }}
heading show before; cryptpilot show --json
sums() {{ sync; for name in {names}; do sha256sum $(device $name); done; }}
sums > /run/before
heading open all; ! cryptpilot open {names} 2>&1
heading init all; ! cryptpilot init {names} --yes 2>&1
heading check all; ! cryptpilot config check --keep-checking 2>&1
sums | cmp /run/before -
heading luks1 adopted; ! cryptpilot adopt luks1 2>&1
heading luks1 converted
cryptsetup luksHeaderBackup $(device luks1) --header-backup-file /run/luks1.header
cryptsetup convert --batch-mode $(device luks1) --type luks2
# in use by another name, as crypttab has it
cryptsetup open --key-file=/run/key $(device installer) luks-installer; mount /dev/mapper/luks-installer /mnt
heading adopt all; cryptpilot adopt {names} 2>&1
heading label installer; blkid --probe --match-tag LABEL --output value $(device installer)
heading token clevis; cryptsetup token export --token-id=0 $(device clevis); echo
umount /mnt; cryptsetup close luks-installer
heading again all; cryptpilot adopt {names} 2>&1
heading show after; cryptpilot show --json
cryptpilot open {names} > /dev/null
for name in {names}; do
    heading kept $name; if mount /dev/mapper/$name /mnt; then cat /mnt/file; umount /mnt; fi
done 2> /dev/null
"""
    result = run_uml(tree, script, disks=list(disks.values()), modules=["algif_skcipher"], timeout=300).check()
    said = parts(result.stdout)
    before, after = ({one["volume"]: one for one in json.loads(said["show", when])} for when in ("before", "after"))
    assert {one["status"] for one in before.values()} == {"requires-adopt"}
    for command in ("open", "init", "check"):
        for name in MADE:
            assert f"cryptpilot adopt {name}" in said[command, "all"], (command, name)
    for command in ("open", "check"):
        # what keeps the data, and nothing that destroys them
        assert not re.search("overwrite|wipefs|cryptpilot init|--force", said[command, "all"]), command
        assert said[command, "all"].count("without the mark of cryptpilot") == len(MADE) - 1
    for told in (said["open", "all"], said["luks1", "adopted"]):
        assert "holds a LUKS1 volume, and only LUKS2 is opened" in told
        assert "cryptsetup convert /dev/disk/by-id/virtio-luks1 --type luks2" in told
    adopted = said["adopt", "all"]
    for name, one in MADE.items():
        held = "" if name == "installer" else f": it holds {one.inside}"  # what is in use is not looked into
        assert f"{name}: {disks[name].device} is adopted{held}" in adopted
        assert f"; open it with: cryptpilot open {name}\n" in adopted
    assert 'bare: it holds no file system, but its file says makefs = "ext4"' in adopted
    assert adopted.count("warning: ") == 1
    assert said["label", "installer"] == "My disk-1\n"
    assert json.loads(said["token", "clevis"])["type"] == "clevis"
    assert said["again", "all"].count("was a volume of cryptpilot already") == len(MADE)
    assert [(one["status"], one["bound"]) for one in after.values()] == [("ready-to-open", True)] * len(MADE)
    assert [said["kept", name] for name in MADE] == [
        f"kept by {name}\n" if "ext4" in one.inside else "" for name, one in MADE.items()
    ]


@pytest.mark.matrix
@pytest.mark.parametrize("release", RELEASES)
def test_each_release_adopts_what_its_own_cryptsetup_made(lab: None, tmp_path: Path, release: str) -> None:  # noqa: ARG001
    """The existing implementation's own system has cryptsetup 2.3."""
    tree = machines.installed_tree(tmp_path / "tree", release=release)
    disks = {name: Disk(blank_disk(tmp_path / f"{name}.img", SIZE), name) for name in ("guide", "tags")}
    script = machines.NO_VOLUMES + "".join(
        machines.exec_volume(name, disk.device, integrity=MADE[name].integrity)
        + MADE[name].make.format(device=disk.device, name=name)
        for name, disk in disks.items()
    )
    script += """
for name in guide tags; do
    cryptpilot adopt $name; cryptpilot open $name; mount /dev/mapper/$name /mnt; cat /mnt/file; umount /mnt
    cryptpilot close $name
done
"""
    said = run_uml(tree, script, disks=list(disks.values()), timeout=240).check().stdout
    for name in disks:
        assert f"virtio-{name} is adopted: it holds data of type ext4" in said
        assert f"kept by {name}\n" in said


def test_nothing_is_adopted_that_is_not_proven(tree: Path, tmp_path: Path) -> None:
    """Another's secret, a file system, an interrupted init, a header that no volume has; and another disk's name."""
    kinds = ("wrong", "plain", "blank", "half", "hostile", "bound", "other", "scratch")
    disks = {name: Disk(blank_disk(tmp_path / f"{name}.img", SIZE), name) for name in kinds}
    files = "".join(machines.exec_volume(name, disk.device) for name, disk in disks.items() if name != "scratch")
    script = f"""{machines.NO_VOLUMES}{HEADING}{files}
device() {{ echo /dev/disk/by-id/virtio-$1; }}
{QUICK} $(device wrong)
sed -i 's#/run/key#/run/another#' /etc/cryptpilot/volumes/wrong.toml; head -c 64 /dev/urandom > /run/another
mkfs.ext4 -q $(device plain)
{QUICK} --subsystem=cryptpilot-initializing $(device half)
{QUICK} --cipher=aes-ecb --key-size=256 $(device hostile)
{QUICK} $(device bound); cryptpilot adopt bound; cryptsetup config $(device bound) --subsystem=""
# the same secret opens it
{QUICK} $(device other)
printf 'volume = "scratch"\\ndev = "%s"\\n[encrypt.otp]\\n' $(device scratch) > /etc/cryptpilot/volumes/scratch.toml
{QUICK} $(device scratch)
look() {{ sync; for name in {" ".join(kinds)}; do sha256sum $(device $name); done; ls /etc/cryptpilot/identities; }}
look > /run/before
for name in wrong plain blank half hostile scratch; do heading adopt $name; ! cryptpilot adopt $name 2>&1; done
# the bound volume's name, another disk that has lost its mark, or never had one
rm /etc/cryptpilot/volumes/other.toml
sed -i 's#virtio-bound#virtio-other#' /etc/cryptpilot/volumes/bound.toml
heading open swapped; ! cryptpilot open bound 2>&1
heading adopt swapped; ! cryptpilot adopt bound 2>&1
look > /run/after; cmp /run/before /run/after
sed -i 's#virtio-other#virtio-bound#' /etc/cryptpilot/volumes/bound.toml
# its own disk, whose mark is gone, is marked again
heading open bound; ! cryptpilot open bound 2>&1
heading adopt bound; cryptpilot adopt bound; cryptpilot open bound
"""
    said = parts(run_uml(tree, script, disks=list(disks.values()), modules=["ecb"], timeout=240).check().stdout)
    expected = {
        "wrong": "the secret does not open",
        "plain": "holds data of type ext4: there is no LUKS2 volume to adopt",
        "blank": "holds nothing: there is no LUKS2 volume to adopt",
        "half": "is not completely initialized: init was interrupted",
        "hostile": "/dev/disk/by-id/virtio-hostile cannot be adopted: ",
        "scratch": "is temporary: each open recreates it, and the data on its disk cannot be kept",
        "swapped": "holds another volume than the one that was initialized or bound as bound",
    }
    for name, words in expected.items():
        assert words in said["adopt", name], name
    assert "rm /etc/cryptpilot/identities/bound.toml, then cryptpilot adopt bound" in said["adopt", "swapped"]
    assert expected["swapped"] in said["open", "swapped"]
    assert "cryptpilot adopt bound" in said["open", "bound"]
    assert "/dev/mapper/bound is open" in said["adopt", "bound"]


OTP = 'volume = "scratch"\ndev = "{device}"\nmakefs = "ext4"\n[encrypt.otp]\n'
LEFT = {
    "unmarked": ("", "crypto_LUKS", "a LUKS2 header of another program"),
    "marked": ("--subsystem=cryptpilot", "cryptpilot", "an initialized cryptpilot volume"),
    "halfway": ("--subsystem=cryptpilot-initializing", "cryptpilot", "a cryptpilot volume whose init was interrupted"),
}


@pytest.mark.parametrize("left", LEFT)
def test_a_temporary_volume_takes_what_another_maker_left_of_it_once_and_by_name(
    tree: Path, tmp_path: Path, left: str
) -> None:
    """`config check` says by day what to do; after that one time the volume is as any other."""
    mark, word, named = LEFT[left]
    disk = Disk(blank_disk(tmp_path / "disk.img", SIZE), "scratch")
    script = f"""{machines.NO_VOLUMES}{HEADING}
printf '%s' '{OTP.format(device=disk.device)}' > /etc/cryptpilot/volumes/scratch.toml
{QUICK} {mark} {disk.device}
sync; sum=$(sha256sum < {disk.device})
heading check by_day; ! cryptpilot config check --skip-check-passphrase 2>&1
heading open plain; ! cryptpilot open scratch 2>&1
heading open unasked; ! cryptpilot open scratch --overwrite {word} 2>&1 < /dev/null
heading open others; ! cryptpilot open scratch --overwrite ext4 --yes 2>&1
[ {word} = crypto_LUKS ] || ! cryptpilot open scratch --overwrite crypto_LUKS --yes 2>&1
sync; [ "$sum" = "$(sha256sum < {disk.device})" ]
heading open named; cryptpilot open scratch --overwrite {word} --yes 2>&1
mount /dev/mapper/scratch /mnt; echo new > /mnt/file; umount /mnt
heading again named; cryptpilot open scratch --overwrite {word} --yes 2>&1
cryptpilot close scratch
heading check after; cryptpilot config check 2>&1
heading open after; cryptpilot open scratch 2>&1; cryptpilot close scratch
"""
    said = parts(run_uml(tree, script, disks=[disk], timeout=120).check().stdout)
    hint = f"cryptpilot open scratch --overwrite {word}"
    for told in (said["check", "by_day"], said["open", "plain"], said["open", "others"]):
        assert f"holds {named}, which this temporary volume did not put there" in told
        assert hint in told
    assert "give --yes if you are sure" in said["open", "unasked"]
    assert "/dev/mapper/scratch is open" in said["open", "named"]
    assert "/dev/mapper/scratch was open already" in said["again", "named"]
    assert "scratch: ok" in said["check", "after"]
    assert "/dev/mapper/scratch is open" in said["open", "after"]


def test_a_temporary_volume_takes_no_other_volume_whatever_is_said(tree: Path, tmp_path: Path) -> None:
    """Not the device of another volume, by whatever path, nor a disk that another volume is bound to."""
    disks = {name: Disk(blank_disk(tmp_path / f"{name}.img", SIZE), name) for name in ("data", "spare", "plain")}
    everything = "--overwrite cryptpilot --overwrite crypto_LUKS --overwrite ext4 --overwrite LVM2_member --yes"
    data = disks["data"].device
    script = f"""{machines.NO_VOLUMES}{HEADING}
{machines.exec_volume("data", data)}
cryptpilot init data --yes; cryptpilot open data; mount /dev/mapper/data /mnt; echo kept > /mnt/file
otp() {{ printf 'volume = "scratch"\\ndev = "%s"\\n[encrypt.otp]\\n' "$1" > /etc/cryptpilot/volumes/scratch.toml; }}
otp "$(readlink -f {data})"
heading take open; ! cryptpilot open scratch {everything} 2>&1
umount /mnt; cryptpilot close data; sync; sum=$(sha256sum < {data})
heading take closed; ! cryptpilot open scratch {everything} 2>&1
# the volume's file has another path now, and its disk is still the one that it is bound to
sed -i 's#virtio-data#virtio-spare#' /etc/cryptpilot/volumes/data.toml
otp {data}
heading take bound; ! cryptpilot open scratch {everything} 2>&1
sync; [ "$sum" = "$(sha256sum < {data})" ]
sed -i 's#virtio-spare#virtio-data#' /etc/cryptpilot/volumes/data.toml
otp /dev/disk/by-id/virtio-plain
heading take persistent; ! cryptpilot open data {everything} 2>&1
heading take key; ! cryptpilot open data --overwrite cryptpilot --recovery-key 2>&1 < /dev/null
printf 'LABELONE' | dd of=/dev/disk/by-id/virtio-plain bs=1 seek=512 conv=notrunc status=none
heading take nothing; cryptpilot open scratch {everything} 2>&1
cryptpilot open data > /dev/null; mount /dev/mapper/data /mnt; heading kept data; cat /mnt/file
"""
    said = parts(run_uml(tree, script, disks=list(disks.values()), timeout=120).check().stdout)
    assert "is in use" in said["take", "open"]
    assert 'holds volume "data"' in said["take", "closed"]
    assert 'holds what volume "data" is bound to' in said["take", "bound"]
    assert "is persistent, and --overwrite is for temporary volumes" in said["take", "persistent"]
    assert "--overwrite is for temporary volumes" in said["take", "key"]
    assert "/dev/mapper/scratch is open" in said["take", "nothing"]
    assert said["kept", "data"] == "kept\n"
