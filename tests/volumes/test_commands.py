"""The commands as an administrator meets them: several volumes, mistakes, questions, interruptions.

Keys come from a command here ([encrypt.exec]): it is the quickest provider, and all are opened alike.
"""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING

import pytest

from tests.lab.disk import Disk, blank_disk, sha256
from tests.lab.uml import run_uml

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.lab.uml import UmlResult

SIZE = 48 << 20
KEY = bytes(range(1, 65)) + b"\n\0\n"
"""A passphrase that is no text, and whose every byte counts."""


class Machine:
    """A machine with some disks, each the device of a volume of its name."""

    def __init__(self, tree: Path, work: Path, names: str) -> None:
        self.tree = tree
        self.disks = {name: Disk(blank_disk(work / f"{name}.img", SIZE), name) for name in names.split()}

    def run(self, script: str, volumes: Mapping[str, str] | None = None, timeout: float = 120) -> UmlResult:
        """Run a script where the disks are exec volumes with ext4, or what `volumes` says in full of one of them."""
        files = {name: exec_volume(disk) for name, disk in self.disks.items()}
        lines = ["rm -f /etc/cryptpilot/volumes/*", "umask 077"]
        for name, text in {**files, **(volumes or {})}.items():
            lines += [f"cat > /etc/cryptpilot/volumes/{name}.toml << 'END OF FILE'", text, "END OF FILE"]
        lines.append(f"base64 -d <<< {base64.b64encode(KEY).decode()} > /run/key")
        # Runs what must fail, and shows what it said and its exit status.
        lines.append('fails() { status=0; "$@" 2>&1 || status=$?; echo "status $status"; [ $status != 0 ]; }')
        return run_uml(
            self.tree,
            "\n".join([*lines, script]),
            disks=list(self.disks.values()),
            modules=["dm-snapshot"],
            timeout=timeout,
        )


def exec_volume(disk: Disk, command: str = "cat", args: str = '["/run/key"]', more: str = 'makefs = "ext4"') -> str:
    return (
        f'volume = "{disk.name}"\ndev = "{disk.device}"\n{more}\n'
        f'[encrypt.exec]\ncommand = "{command}"\nargs = {args}\ntimeout = 20\n'
    )


def states(result: UmlResult) -> dict[str, str]:
    """Return the states that the last `show --json` of a script printed."""
    text = result.stdout[f"\n{result.stdout}".rindex("\n[\n") :]
    return {record["volume"]: record["status"] for record in json.JSONDecoder().raw_decode(text)[0]}


def test_several_volumes_each_reported_and_one_failing(tree: Path, tmp_path: Path) -> None:
    machine = Machine(tree, tmp_path, "a b c")
    broken = exec_volume(machine.disks["b"], "sh", '["-c", "echo no such key >&2; exit 3"]')
    result = machine.run(
        """
cryptpilot init a c --yes
fails cryptpilot init a b --yes
fails cryptpilot open a b c
cryptpilot open a c
cryptpilot show --json
cryptpilot close a c
cryptpilot close a c
""",
        {"b": broken},
    ).check()
    assert {f"{name}: {machine.disks[name].device} is initialized" in result.stdout for name in "ac"} == {True}
    assert f"cryptpilot: error: a: {machine.disks['a'].device} is initialized already" in result.stdout
    assert result.stdout.count("cryptpilot: error: b: sh failed with exit status 3: no such key\n") == 1
    assert "cryptpilot: error: b: /dev/disk/by-id/virtio-b is not initialized" in result.stdout
    assert result.stdout.count("status 1\n") == 2
    assert {f"{name}: /dev/mapper/{name} was open already" in result.stdout for name in "ac"} == {True}
    assert {f"{name}: /dev/mapper/{name} was closed already" in result.stdout for name in "ac"} == {True}
    assert states(result) == {"a": "opened", "b": "requires-init", "c": "opened"}


def test_the_key_is_the_output_of_the_command_byte_for_byte(tree: Path, tmp_path: Path) -> None:
    machine = Machine(tree, tmp_path, "a")
    machine.run("""
cryptpilot init a --yes
cryptsetup open --test-passphrase --key-file /run/key /dev/disk/by-id/virtio-a
head -c -1 /run/key > /run/shorter
! cryptsetup open --test-passphrase --key-file /run/shorter /dev/disk/by-id/virtio-a
""").check()


def test_config_check_finds_by_day_what_would_fail_at_night(tree: Path, tmp_path: Path) -> None:
    machine = Machine(tree, tmp_path, "good wrong weak zero odd")
    disks = machine.disks
    result = machine.run(
        """
echo "correct horse battery staple" > /run/words
cryptpilot init good wrong weak --yes
echo other > /run/other
sed -i s:/run/key:/run/other: /etc/cryptpilot/volumes/wrong.toml
mkfs.ext4 -q /dev/disk/by-id/virtio-odd
fails cryptpilot config check
echo all:
fails cryptpilot config check --keep-checking
echo skipping:
cryptpilot config check --skip-check-passphrase
echo "voulme = 1" > /etc/cryptpilot/volumes/typo.toml
echo broken:
fails cryptpilot config check --skip-check-passphrase
""",
        {
            "weak": exec_volume(disks["weak"], args='["/run/words"]'),
            "far": exec_volume(Disk(disks["good"].path, "far")),
            "odd": exec_volume(disks["odd"], more='makefs = "xfs"'),
            "zero": f'volume = "zero"\ndev = "{disks["zero"].device}"\n[encrypt.otp]\n',
        },
        timeout=240,
    ).check()
    first, _, rest = result.stdout.partition("all:\n")
    keep_checking, _, rest = rest.partition("skipping:\n")
    skipping, _, broken = rest.partition("broken:\n")
    wrong = f"wrong: error: the secret does not open {disks['wrong'].device}: no key slot takes it\n"
    weak = "weak: warning: its secret is weak"
    assert wrong in first
    assert "stopped at the first error; --keep-checking goes on\nstatus 1\n" in first
    assert "zero: ok" not in first
    assert wrong in keep_checking
    assert weak in keep_checking
    assert "far: warning: its disk is not attached: /dev/disk/by-id/virtio-far" in keep_checking
    assert f"odd: warning: is not initialized: {disks['odd'].device} holds data of type ext4\n" in keep_checking
    assert keep_checking.endswith("zero: ok\nstatus 1\n")
    assert {f"{name}: ok\n" in skipping for name in ("good", "weak", "wrong", "zero")} == {True}
    assert 'typo.toml:1: unknown key "voulme" (did you mean "volume"?)' in broken
    assert "zero: ok\n" in broken
    assert broken.endswith("status 2\n")


def test_a_volume_is_made_anew_only_if_that_is_said(tree: Path, tmp_path: Path) -> None:
    machine = Machine(tree, tmp_path, "a b c")
    result = machine.run("""
cryptpilot init a --yes
cryptpilot open a
mount /dev/mapper/a /mnt; touch /mnt/precious; umount /mnt
fails cryptpilot init a --yes --force-reinit
cryptpilot close a
fails cryptpilot init a --yes --overwrite crypto_LUKS
uuid() { cryptsetup luksUUID /dev/disk/by-id/virtio-a; }
before=$(uuid)
cryptpilot init a --yes --force-reinit
[ $before != $(uuid) ]
cryptpilot open a
mount /dev/mapper/a /mnt; ls /mnt; umount /mnt

mkfs.ext4 -q /dev/disk/by-id/virtio-b
fails cryptpilot init b --yes
fails cryptpilot init b --yes --overwrite swap
cryptpilot init b --yes --overwrite ext4

# a partition table is called by its name too
printf '\\0\\2\\0\\0\\x83\\0\\0\\0\\0\\x08\\0\\0\\0\\x10\\0\\0' |
    dd of=/dev/disk/by-id/virtio-c bs=1 seek=446 conv=notrunc status=none
printf '\\x55\\xaa' | dd of=/dev/disk/by-id/virtio-c bs=1 seek=510 conv=notrunc status=none
cryptpilot init c --yes --overwrite dos
""").check()
    assert "cryptpilot: error: a: is open\n" in result.stdout
    assert "precious" not in result.stdout
    assert "lost+found" in result.stdout
    assert "cryptpilot init a --force-reinit" in result.stdout
    assert "virtio-b holds data of type ext4; init would destroy it" in result.stdout
    assert "cryptpilot init b --overwrite ext4" in result.stdout
    assert result.stdout.count("status 1\n") == 4


def test_the_question_names_the_disk_and_what_is_lost(tree: Path, tmp_path: Path) -> None:
    """On a terminal; where the states are in color, and what is at work can be seen."""
    machine = Machine(tree, tmp_path, "a b")
    before = sha256(machine.disks["b"].path)
    result = machine.run("""
mkfs.ext4 -q /dev/disk/by-id/virtio-a
# a mkfs that takes its time
printf '#!/bin/sh\\nsleep 2\\nexec /run/mkfs.real "$@"\\n' > /run/mkfs.ext4; chmod +x /run/mkfs.ext4
target=$(readlink -f /usr/sbin/mkfs.ext4); cp $target /run/mkfs.real; mount --bind /run/mkfs.ext4 $target
export TERM=linux
# the second is declined
printf 'y\\nn\\n' | script --quiet --return --command "stty cols 200; cryptpilot init a b --overwrite ext4" /dev/null ||
    echo "status $?"
script --quiet --command "cryptpilot show a" /dev/null
NO_COLOR=1 script --quiet --command "cryptpilot show a" /dev/null
cryptpilot show a
""").check()
    question = re.search(r"^.*Initialize it as volume a\?.*$", result.stdout, re.MULTILINE)
    assert question
    assert f"{machine.disks['a'].device} (/dev/ubda, 48 MiB), which holds data of type ext4" in question[0]
    assert "b (/dev/ubdb, 48 MiB), which holds nothing" in result.stdout
    assert "cryptpilot: error: b: not initialized: not confirmed" in result.stdout
    assert "status 1" in result.stdout
    assert sha256(machine.disks["b"].path) == before
    assert re.search(rf"a: making the file system {machine.disks['a'].device}, [0-9]+ s", result.stdout)
    colored, plain, piped = [line for line in result.stdout.splitlines() if line.startswith("a  ")]
    assert colored.rstrip().endswith("\x1b[36mready-to-open\x1b[0m")
    assert plain.rstrip() == piped
    assert piped.endswith("True         False   ready-to-open")


def test_a_damaged_file_system_is_not_handed_over(tree: Path, tmp_path: Path) -> None:
    machine = Machine(tree, tmp_path, "a")
    result = machine.run(r"""
cryptpilot init a --yes
cryptpilot open a --check-fs
cryptpilot close a
cryptpilot open a
# the root directory's inode, and the whole table it is in
dd if=/dev/urandom of=/dev/mapper/a bs=4096 seek=$(
    dumpe2fs /dev/mapper/a 2>/dev/null | sed -n 's/.*Inode table at \([0-9]*\)-.*/\1/p' | head -1
) count=4 conv=notrunc status=none
cryptpilot close a
fails cryptpilot open a --check-fs
ls /dev/mapper
cryptpilot open a
""").check()
    assert "the ext4 file system of volume a is damaged: e2fsck:" in result.stdout
    assert "status 1\ncontrol\n" in result.stdout
    assert result.stdout.endswith("a: /dev/mapper/a is open\n")


SLOW_MKFS = """
printf '#!/bin/sh\\ntouch /run/begun\\nsleep 60\\n' > /run/mkfs.ext4; chmod +x /run/mkfs.ext4
mount --bind /run/mkfs.ext4 $(readlink -f /usr/sbin/mkfs.ext4)
"""
# where init is when it is interrupted: configuration, preparation, and the sign that it has got so far
STAGES = {
    "asking for the key": (
        {"command": "sh", "args": '["-c", "touch /run/begun; sleep 60"]'},
        "",
        "[ -e /run/begun ]",
    ),
    "making the file system": ({}, SLOW_MKFS, "[ -e /run/begun ]"),
    "writing all of the device": (
        {"more": "integrity = true"},
        # so slow a device that it lasts for minutes
        'dmsetup() { DM_DISABLE_UDEV=1 command dmsetup "$@"; }\n',
        "ls /dev/mapper | grep --quiet temporary-cryptsetup",
    ),
}


@pytest.mark.parametrize("how", ["INT", "TERM"])
@pytest.mark.parametrize("stage", STAGES)
def test_an_interrupted_init_leaves_nothing_open_and_can_be_run_again(
    tree: Path, tmp_path: Path, stage: str, how: str
) -> None:
    configuration, prepare, reached = STAGES[stage]
    machine = Machine(tree, tmp_path, "a")
    if stage == "writing all of the device":
        machine.disks["a"].path.open("r+b").truncate(2 << 30)
    result = machine.run(
        f"""{prepare}
# as from a terminal: to the command alone, which is not ignoring it as a background job of a shell would
perl -e '$SIG{{INT}} = "DEFAULT"; exec @ARGV' cryptpilot init a --yes > /run/said 2>&1 & pid=$!
until {reached}; do sleep 0.1; done
kill -{how} $pid
status=0; wait $pid || status=$?; echo "status $status"; cat /run/said
ls /dev/mapper
ps -e -o comm= | grep -c -E "^(cryptsetup|mkfs|sleep)" || true
cryptpilot show --json
umount $(readlink -f /usr/sbin/mkfs.ext4) 2>/dev/null || true
sed -i -e 's:^command.*:command = "cat":' -e 's:^args.*:args = ["/run/key"]:' -e 's/^integrity.*/makefs = "ext4"/' \\
    /etc/cryptpilot/volumes/a.toml
cryptpilot init a --yes
cryptpilot open a
""",
        {"a": exec_volume(machine.disks["a"], **configuration)},
    ).check()
    assert "status 130\ncryptpilot: interrupted\ncontrol\n" in result.stdout
    expected = "requires-init" if stage == "asking for the key" else "initializing"
    assert states(result)["a"] in (expected, "requires-init")
    assert result.stdout.endswith("a: /dev/mapper/a is open\n")


def test_a_volume_of_the_rust_tool_opens(tree: Path, tmp_path: Path) -> None:
    """It has the same marks and takes the same bytes for the passphrase; how the key is derived is in the header."""
    machine = Machine(tree, tmp_path, "a b")
    result = machine.run("""
for name in a b; do
    cryptsetup luksFormat --batch-mode --type luks2 --pbkdf-memory 65536 --pbkdf-force-iterations 4 \\
        --subsystem cryptpilot --key-file /run/key /dev/disk/by-id/virtio-$name
done
cryptsetup config --subsystem cryptpilot-initializing /dev/disk/by-id/virtio-b
cryptpilot show --json
cryptpilot open a
mkfs.ext4 -q /dev/mapper/a
cryptpilot close a
cryptpilot open a --check-fs
cryptsetup status a
fails cryptpilot open b
""").check()
    assert states(result) == {"a": "ready-to-open", "b": "initializing"}
    assert "type:    LUKS2" in result.stdout
    assert "init was interrupted" in result.stdout


def test_a_device_that_looks_blank_because_it_cannot_be_read_is_not_blank(tree: Path, tmp_path: Path) -> None:
    """libblkid says "nothing" of a device it cannot read: neither init nor a temporary volume may believe it."""
    machine = Machine(tree, tmp_path, "a b")
    dev = "/dev/mapper/bad"
    before = {name: sha256(disk.path) for name, disk in machine.disks.items()}
    result = machine.run(
        """
# one sector cannot be read, where a superblock may be
for disk in a b; do
    DM_DISABLE_UDEV=1 dmsetup create bad-$disk << END
0 2048 linear /dev/disk/by-id/virtio-$disk 0
2048 8 error
2056 96248 linear /dev/disk/by-id/virtio-$disk 2056
END
done
blkid --probe /dev/mapper/bad-a || echo "blkid: $?"
fails cryptpilot init a --yes
fails cryptpilot open b
cryptpilot show --json
""",
        {
            "a": exec_volume(machine.disks["a"]).replace(machine.disks["a"].device, f"{dev}-a"),
            "b": f'volume = "b"\ndev = "{dev}-b"\nmakefs = "ext4"\n[encrypt.otp]\n',
        },
    ).check()
    assert "blkid: 2\n" in result.stdout
    assert f"cryptpilot: error: a: {dev}-a: cannot be read: Input/output error" in result.stdout
    assert f"cryptpilot: error: b: {dev}-b: cannot be read: Input/output error" in result.stdout
    assert states(result) == {"a": "check-failed", "b": "check-failed"}
    assert {name: sha256(disk.path) for name, disk in machine.disks.items()} == before


def test_a_volume_stays_a_volume_whatever_its_ciphertext_looks_like(tree: Path, tmp_path: Path) -> None:
    """By chance, libblkid takes one device in some ten thousand for part of a RAID."""
    machine = Machine(tree, tmp_path, "a")
    machine.run("cryptpilot init a --yes").check()
    with machine.disks["a"].path.open("r+b") as image:
        # libblkid: "JM", version 2, and 16-bit words that add up to 0 or 1, in the last sector
        sector = bytearray(512)
        sector[:8] = b"JM\0\0\0\0\2\0"
        total = sum(int.from_bytes(sector[at : at + 2], "little") for at in range(0, 128, 2)) & 0xFFFF
        sector[2:4] = ((0x10000 - total) & 0xFFFF).to_bytes(2, "little")
        image.seek(-512, 2)
        image.write(sector)
    result = machine.run("""
blkid --probe --output=value --match-tag=TYPE /dev/disk/by-id/virtio-a
cryptpilot show --json
cryptpilot open a
""").check()
    assert "jmicron_raid_member" in result.stdout
    assert states(result) == {"a": "ready-to-open"}
    assert result.stdout.endswith("a: /dev/mapper/a is open\n")


def test_who_stops_listening_stops_nothing(tree: Path, tmp_path: Path) -> None:
    machine = Machine(tree, tmp_path, "a b c")
    result = machine.run("""
# reads nothing, and is gone when the first is done
{ status=0; cryptpilot init a b c --yes || status=$?; echo "status $status" >&2; } | true
ls /dev/mapper
cryptpilot show --json
""").check()
    assert "status 1\n" in result.stderr
    assert result.stdout.startswith("control\n[")
    assert set(states(result).values()) == {"ready-to-open"}


def test_a_mapping_of_that_name_is_not_the_volume_even_when_the_disk_is_gone(tree: Path, tmp_path: Path) -> None:
    machine = Machine(tree, tmp_path, "a")
    gone = exec_volume(Disk(machine.disks["a"].path, "gone")).replace('volume = "gone"', 'volume = "a"')
    result = machine.run(
        """
DM_DISABLE_UDEV=1 dmsetup create a --table "0 2048 linear /dev/disk/by-id/virtio-a 0"
fails cryptpilot open a
fails cryptpilot close a
cryptpilot show --json
ls /dev/mapper
""",
        {"a": gone},
    ).check()
    # of show it is "detail", and in the existing tool's word "description"
    assert result.stdout.count("/dev/mapper/a exists, but is not an encrypted mapping of") == 4
    assert states(result) == {"a": "check-failed"}
    assert result.stdout.endswith("\na\ncontrol\n")


def test_what_a_killed_check_left_open_is_closed_by_the_next_open(tree: Path, tmp_path: Path) -> None:
    machine = Machine(tree, tmp_path, "a")
    result = machine.run("""
cryptpilot init a --yes
printf '#!/bin/sh\\nkill -9 $PPID\\n' > /run/e2fsck; chmod +x /run/e2fsck
mount --bind /run/e2fsck $(readlink -f /usr/sbin/e2fsck)
cryptpilot open a --check-fs || echo "killed: $?"
ls /dev/mapper
cryptpilot open a
ls /dev/mapper
""").check()
    _, _, rest = result.stdout.partition("killed: 137\n")
    assert rest.split() == ["a-initializing", "control", "a:", "/dev/mapper/a", "is", "open", "a", "control"]


def test_half_of_a_mapping_that_a_killed_cryptsetup_left_is_cleared_away(tree: Path, tmp_path: Path) -> None:
    machine = Machine(tree, tmp_path, "a")
    result = machine.run(
        """
cryptpilot init a --yes
cryptpilot open a
DM_DISABLE_UDEV=1 dmsetup remove a
ls /dev/mapper
cryptpilot open a
ls /dev/mapper
""",
        {"a": exec_volume(machine.disks["a"], more="integrity = true\nmakefs = 'ext4'")},
    ).check()
    *_, halved, again = re.split(r"a: /dev/mapper/a is open\n", result.stdout)
    assert [halved.split(), again.split()] == [["a_dif", "control"], ["a", "a_dif", "control"]]


def test_two_processes_at_one_volume_do_not_spoil_each_others_work(tree: Path, tmp_path: Path) -> None:
    """The first is held in the middle of its work by a mkfs that waits; the second is told, and touches nothing."""
    machine = Machine(tree, tmp_path, "a")
    result = machine.run("""
mkfs=$(readlink -f /usr/sbin/mkfs.ext4); cp $mkfs /run/mkfs.real; mkfifo /run/at-work /run/go-on
printf '#!/bin/sh\\necho > /run/at-work; cat /run/go-on; exec -a mkfs.ext4 /run/mkfs.real "$@"\\n' > /run/mkfs
sed -i 1s/sh/bash/ /run/mkfs; chmod +x /run/mkfs; mount --bind /run/mkfs $mkfs
cryptpilot init a --yes &
cat /run/at-work
for command in "init a --yes" "open a"; do fails cryptpilot $command; done
ls /dev/mapper
echo > /run/go-on
wait %1
umount $mkfs
cryptpilot open a
""").check()
    busy = "cryptpilot: error: a: another cryptpilot process is working on volume a\n"
    assert result.stdout.count(busy) == 2
    assert "\na-initializing\ncontrol\n" in result.stdout
    assert result.stdout.endswith("a: /dev/mapper/a is open\n")


def test_an_xfs_that_was_not_unmounted_is_not_damaged(tree: Path, tmp_path: Path) -> None:
    machine = Machine(tree, tmp_path, "")
    machine.disks["x"] = disk = Disk(blank_disk(tmp_path / "x.img", 340 << 20), "x")
    result = machine.run(
        """
cryptpilot init x --yes
cryptpilot open x --check-fs
mount /dev/mapper/x /mnt
echo kept > /mnt/file; sync
xfs_io -x -c "shutdown -f" /mnt
umount /mnt
cryptpilot close x
cryptpilot open x --check-fs
mount /dev/mapper/x /mnt
cat /mnt/file
umount /mnt
# what stands behind the first superblock
dd if=/dev/urandom of=/dev/mapper/x bs=4096 seek=1 count=60 conv=notrunc status=none
cryptpilot close x
fails cryptpilot open x --check-fs
""",
        {"x": exec_volume(disk, more='makefs = "xfs"')},
    ).check()
    assert "\nkept\n" in result.stdout
    assert "the xfs file system of volume x is damaged: xfs_repair: " in result.stdout


def test_weak_secrets_of_several_volumes_are_stretched_one_after_the_other(tree: Path, tmp_path: Path) -> None:
    """Argon2id takes up to half of the memory there is: of two at once one would be killed for want of it."""
    machine = Machine(tree, tmp_path, "a b")
    machine.run("""
for name in a b; do
    cryptsetup luksFormat --batch-mode --type luks2 --pbkdf argon2id --pbkdf-memory 450000 --pbkdf-force-iterations 4 \\
        --pbkdf-parallel 1 --subsystem cryptpilot --key-file /run/key /dev/disk/by-id/virtio-$name
done
cryptpilot open a b
ls /dev/mapper/a /dev/mapper/b
""").check()


def test_a_stage_leaves_nothing_half_made(tree: Path, tmp_path: Path) -> None:
    """A temporary volume takes longer than [boot] timeout, or the stage is told to end in the middle of it."""
    machine = Machine(tree, tmp_path, "a")
    disk = machine.disks["a"]
    result = machine.run(
        f"""{SLOW_MKFS}
printf '[boot]\\ntimeout = 1\\nlate_after = 0\\n' > /etc/cryptpilot/global.toml
left() {{ ls /dev/mapper; ps -e -o comm= | grep -c -E "^(cryptsetup|mkfs)" || true; }}
echo "-- initrd"
touch /etc/initrd-release; mkdir -p /sysroot
(until [ -e /run/begun ]; do sleep 0.1; done; mount -t tmpfs none /sysroot) &
cryptpilot boot-service --stage initrd
left
rm /etc/initrd-release /run/begun
echo "-- told to end"
cryptpilot boot-service --stage system & pid=$!
until [ -e /run/begun ]; do sleep 0.1; done
kill -TERM $pid
status=0; wait $pid || status=$?; echo "status $status"
left
umount $(readlink -f /usr/sbin/mkfs.ext4)
echo "-- system"
mkfs=$(readlink -f /usr/sbin/mkfs.ext4); cp $mkfs /run/mkfs.real
printf '#!/bin/bash\\nsleep 9\\nexec -a mkfs.ext4 /run/mkfs.real "$@"\\n' > /run/mkfs.ext4
mount --bind /run/mkfs.ext4 $mkfs
cryptpilot boot-service --stage system
left
blkid -o value -s TYPE /dev/mapper/a
""",
        {"a": f'volume = "a"\ndev = "{disk.device}"\nauto_open = true\nmakefs = "ext4"\n[encrypt.otp]\n'},
    ).check()
    _, initrd, told, system = re.split("^-- .*\n", result.stdout, flags=re.MULTILINE)
    ended = "a: stopped during makefs: [boot] timeout (1 s) expired; "
    assert ended in initrd
    assert initrd.endswith("left to cryptpilot.service\ncontrol\n0\n")
    assert told == "status 130\ncontrol\n0\n"
    still = rf"a: still making the file system {re.escape(disk.device)}: \d+ s; it had begun, and goes on past "
    assert re.search(rf"{still}\[boot\] timeout\na: /dev/mapper/a opened in ", system)
    assert system.endswith("\na\ncontrol\n0\next4\n")


def test_the_end_of_a_volumes_unit_waits_until_what_is_mounted_of_it_is_unmounted(tree: Path, tmp_path: Path) -> None:
    """As systemd has them end at the same time: with much to write that takes longer."""
    result = (
        Machine(tree, tmp_path, "a")
        .run("""
cryptpilot init a --yes
cryptpilot open a
mkdir /run/mnt; mount /dev/mapper/a /run/mnt
/usr/libexec/cryptpilot-volume a close > /run/said 2>&1 & pid=$!
sleep 8  # longer than cryptsetup itself tries
umount /run/mnt
status=0; wait $pid || status=$?; echo "status $status"; cat /run/said; ls /dev/mapper
/usr/libexec/cryptpilot-volume a close; echo "again: $?"
""")
        .check()
    )
    _, _, said = result.stdout.partition("status ")
    waiting = "a: waiting until it is not in use any more"
    assert said == f"0\n{waiting}\na: /dev/mapper/a is closed\ncontrol\nagain: 0\n"
