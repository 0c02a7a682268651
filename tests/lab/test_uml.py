"""User-mode Linux, and the root trees it runs on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lab.disk import Disk, blank_disk, sha256
from tests.lab.image import fill_script, make_archive, make_ext4, prune
from tests.lab.run import LabError
from tests.lab.tree import SHARE, clone, in_chroot, kernel
from tests.lab.uml import run_uml, start_uml

CHECKOUT = Path(__file__).parents[2]
MB = 1 << 20

FORMAT = "cryptsetup luksFormat --batch-mode --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file /root/key"
OPEN = "cryptsetup open --key-file /root/key"


def processes(text: str) -> list[int]:
    """Return the processes of the host that have a text in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:  # gone meanwhile
            continue
        if text.encode() in command:
            found.append(int(path.parent.name))
    return [process for process in found if process != os.getpid()]


def wait_until_gone(text: str) -> None:
    deadline = time.monotonic() + 5
    while processes(text):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_exit_status_and_output_come_through(bookworm_tree: Path) -> None:
    result = run_uml(bookworm_tree, "printf out; printf err >&2; exit 3")
    assert (result.returncode, result.stdout, result.stderr) == (3, "out", "err")
    with pytest.raises(AssertionError, match="ended with status 3"):
        result.check()


def test_script_stops_at_the_first_failure(bookworm_tree: Path) -> None:
    result = run_uml(bookworm_tree, "false\necho went on")
    assert (result.returncode, result.stdout) == (1, "")


def test_tree_is_writable_inside_and_stays_as_it_is(bookworm_tree: Path, tmp_path: Path) -> None:
    script = f"echo changed > /etc/hostname; touch /new; cp /etc/hostname {SHARE}/seen; stat -c %u:%g:%a /etc/shadow"
    result = run_uml(bookworm_tree, script, share=tmp_path).check()
    assert result.stdout == "0:42:640\n"
    assert (tmp_path / "seen").read_text() == "changed\n"
    assert (bookworm_tree / "etc/hostname").read_text() == "lab\n"
    assert not (bookworm_tree / "new").exists()


def test_host_tree_can_be_the_root(lab: None, tmp_path: Path) -> None:  # noqa: ARG001
    result = run_uml(Path("/"), f"cat {tmp_path}/here; touch {tmp_path}/new; cat /proc/sys/kernel/osrelease")
    assert result.returncode == 1
    (tmp_path / "here").write_text("here\n")
    result = run_uml(Path("/"), f"cat {tmp_path}/here; touch {tmp_path}/new").check()
    assert result.stdout == "here\n"
    assert not (tmp_path / "new").exists()


def test_no_network_but_loopback(bookworm_tree: Path) -> None:
    result = run_uml(bookworm_tree, "ip -brief address | cut -d' ' -f1; ip route").check()
    assert "lo\n" in result.stdout
    assert "default" not in result.stdout
    assert "eth" not in result.stdout


def test_luks2_volume(bookworm_tree: Path, tmp_path: Path) -> None:
    disk = Disk(blank_disk(tmp_path / "disk.img", 64 * MB), "data1")
    script = f"""
printf secret > /root/key
{FORMAT} {disk.device}
{OPEN} {disk.device} volume
mkfs.ext4 -q /dev/mapper/volume
mount /dev/mapper/volume /mnt
echo kept > /mnt/file
umount /mnt
cryptsetup close volume
test ! -e /dev/mapper/volume
{OPEN} {disk.device} volume
mount /dev/mapper/volume /mnt
cat /mnt/file
"""
    result = run_uml(bookworm_tree, script, disks=[disk]).check()
    assert result.stdout == "kept\n"
    assert disk.path.read_bytes().startswith(b"LUKS\xba\xbe")
    assert b"kept" not in disk.path.read_bytes()


def test_as_many_disks_as_the_kernel_has_room_for(bookworm_tree: Path, tmp_path: Path) -> None:
    disks = [Disk(blank_disk(tmp_path / f"{n}.img", (n + 1) * 4096), f"disk{n}") for n in range(17)]
    last = disks[15].device
    result = run_uml(bookworm_tree, f"readlink -f {last}; blockdev --getsize64 {last}", disks=disks[:16]).check()
    assert result.stdout == f"/dev/ubdp\n{16 * 4096}\n"
    with pytest.raises(LabError, match="17 disks"):
        run_uml(bookworm_tree, "true", disks=disks)


def test_integrity_without_wiping(bookworm_tree: Path, tmp_path: Path) -> None:
    disk = blank_disk(tmp_path / "disk.img", 64 * MB)
    script = f"""
printf secret > /root/key
{FORMAT} --sector-size 4096 --integrity hmac-sha256 --integrity-no-wipe /dev/ubda
{OPEN} /dev/ubda volume
dmsetup table volume | cut -d' ' -f3
if dd if=/dev/mapper/volume of=/dev/null bs=4096 count=1 iflag=direct; then echo "read unwritten"; fi
dd if=/dev/zero of=/dev/mapper/volume bs=4096 count=1 oflag=direct
dd if=/dev/mapper/volume of=/dev/null bs=4096 count=1 iflag=direct
"""
    result = run_uml(bookworm_tree, script, disks=[disk]).check()
    assert result.stdout == "crypt\n"
    assert "INTEGRITY AEAD ERROR" in result.console or "Input/output error" in result.stderr


def test_disks_are_named_in_order_and_can_be_read_only(bookworm_tree: Path, tmp_path: Path) -> None:
    first = blank_disk(tmp_path / "first.img", 1 * MB)
    second = Disk(blank_disk(tmp_path / "second.img", 2 * MB), "other", readonly=True)
    before = sha256(second.path)
    script = """
readlink -f /dev/disk/by-id/virtio-first /dev/disk/by-id/virtio-other
blockdev --getsize64 /dev/ubda /dev/ubdb
blockdev --getro /dev/ubda /dev/ubdb
echo x > /dev/ubda
if dd if=/etc/passwd of=/dev/ubdb conv=notrunc,fsync; then exit 1; fi
"""
    result = run_uml(bookworm_tree, script, disks=[first, second]).check()
    assert result.stdout.split() == ["/dev/ubda", "/dev/ubdb", str(MB), str(2 * MB), "0", "1"]
    assert first.read_bytes()[:2] == b"x\n"
    assert sha256(second.path) == before


def test_power_cut_keeps_what_was_synced(bookworm_tree: Path, tmp_path: Path) -> None:
    disk = blank_disk(tmp_path / "disk.img", 8 * MB)
    script = f"""
echo begun
printf synced | dd of=/dev/ubda conv=fsync
touch {SHARE}/synced
sleep 1000
"""
    with start_uml(bookworm_tree, script, disks=[disk], share=tmp_path) as uml:
        wait_for(tmp_path / "synced")
        assert uml.running
        assert processes(str(disk))
        time.sleep(1.5)  # what it said is shown every second
        result = uml.kill()
    assert not processes(str(disk))
    assert result.returncode is None
    assert result.stdout == "begun\n"
    assert not uml.running
    assert disk.read_bytes()[:6] == b"synced"


def test_machines_die_with_the_test_run(bookworm_tree: Path, tmp_path: Path) -> None:
    disk = blank_disk(tmp_path / "disk.img", 1 * MB)
    domain = f"{os.getpid()}.test"
    program = f"""
import time
from pathlib import Path
from tests.lab.net import namespace
from tests.lab.uml import start_uml
share = Path({str(tmp_path)!r})
start_uml(Path({str(bookworm_tree)!r}), "touch {SHARE}/up; sleep 1000", disks=[share / "disk.img"], share=share)
with namespace({{{domain!r}: "10.0.2.2"}}):
    time.sleep(1000)
"""
    test_run = subprocess.Popen([sys.executable, "-c", program], cwd=CHECKOUT)
    wait_for(tmp_path / "up")
    assert processes(str(disk))
    assert processes(domain)
    test_run.kill()
    test_run.wait()
    wait_until_gone(str(disk))
    wait_until_gone(domain)


def test_time_out_says_what_was_going_on(bookworm_tree: Path, tmp_path: Path) -> None:
    disk = blank_disk(tmp_path / "disk.img", 1 * MB)
    with pytest.raises(LabError, match=r"still at work after 6 s(?s:.)*waiting for nothing"):
        run_uml(bookworm_tree, "echo waiting for nothing; sleep 1000", disks=[disk], timeout=6)
    assert not processes(str(disk))


def test_root_on_luks2_is_filled_from_an_archive(bookworm_tree: Path, tmp_path: Path) -> None:
    tree = prune(bookworm_tree, tmp_path / "tree")
    (tree / "root/private").write_text("private\n")
    os.chown(tree / "root/private", 1234, 5678)
    (tree / "root/private").chmod(0o4710)
    archive = Disk(make_archive(tmp_path / "tree.tar", tree), "archive", readonly=True)
    disk = Disk(blank_disk(tmp_path / "disk.img", 400 * MB), "root")
    script = f"""
printf secret > /root/key
{FORMAT} {disk.device}
{OPEN} {disk.device} root
mkfs.ext4 -q /dev/mapper/root
{fill_script(archive.device, "/dev/mapper/root")}
mount /dev/mapper/root /mnt
stat -c %u:%g:%a /mnt/root/private
chroot /mnt systemctl --version | head -1 | cut -d' ' -f1,2
"""
    result = run_uml(bookworm_tree, script, disks=[disk, archive]).check()
    assert result.stdout == "1234:5678:4710\nsystemd 252\n"


def test_chroot_sees_no_disk_no_network_and_leaves_no_mount(bookworm_tree: Path, tmp_path: Path) -> None:
    tree = clone(bookworm_tree, tmp_path / "tree")
    share = tmp_path / "share"
    share.mkdir()
    before = Path("/proc/self/mountinfo").read_text()
    script = f"""
set -e
ls /dev | tr '\\n' ' '; echo
ip -brief link | cut -d' ' -f1
touch /here {SHARE}/there /run/nowhere
test -e /proc/self/fd -a -d /sys/block
echo "$@"
"""
    output = in_chroot(tree, ["bash", "-c", script, "bash", "two words", "three"], share=share)
    assert output.splitlines() == [
        "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero ",
        "lo",
        "two words three",
    ]
    assert (tree / "here").exists()
    assert (share / "there").exists()
    assert not (tree / "run/nowhere").exists()
    assert Path("/proc/self/mountinfo").read_text() == before

    with pytest.raises(LabError, match=r"ended with status 7\.\n(?s:.)*said out(?s:.)*said err"):
        in_chroot(tree, ["sh", "-c", "echo said out; echo said err >&2; exit 7"])
    with pytest.raises(LabError, match=r"still running after 0\.5 s"):
        in_chroot(tree, ["sleep", "987654"], timeout=0.5)
    wait_until_gone("987654")


def test_tree_has_what_boots_and_nothing_of_this_machine(bookworm_tree: Path) -> None:
    assert kernel(bookworm_tree).is_file()
    assert not (bookworm_tree / "etc/resolv.conf").exists()
    assert not list((bookworm_tree / "boot").glob("initrd*"))
    assert (bookworm_tree / "etc/machine-id").read_text() == ""


def test_ext4_image_holds_a_tree(bookworm_tree: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_text("content\n")
    os.chown(tree / "file", 12, 34)
    image = make_ext4(tmp_path / "image", tree, 16 * MB, ["-L", "label"])
    script = "mount /dev/ubda /mnt; stat -c %u:%g /mnt/file; cat /mnt/file; blkid -s LABEL -o value /dev/ubda"
    result = run_uml(bookworm_tree, script, disks=[image]).check()
    assert result.stdout == "12:34\ncontent\nlabel\n"
