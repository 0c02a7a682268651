"""A machine is turned off: the volume that its root is on is closed by what the initrd has left, both its layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests import machines
from tests.boot.shutdown import GONE_OVER, require_nothing_left
from tests.lab.disk import Disk, blank_disk
from tests.lab.uml import run_uml

if TYPE_CHECKING:
    from pathlib import Path

# As the dracut module does it when an image is made.
LIST = """
find_binary() { false; }
inst_multiple() { :; }
initdir= dracutsysrootdir= systemdutildir=/usr/lib/systemd
. /usr/lib/dracut/modules.d/95cryptpilot/module-setup.sh
_keep_for_shutdown
"""
# A root on the volume with no more than systemd's program in it, which is then the first process of its own.
TURN_OFF = """
mount --make-rprivate /
mkdir /run/new
mount /dev/mapper/root /run/new
cp -a /run/initramfs/lib* /run/initramfs/usr /run/new
mkdir /run/new/usr/lib/systemd
cp /usr/lib/systemd/systemd-shutdown /run/new/usr/lib/systemd
cd /run/new
mkdir dev proc sys run mnt
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t devtmpfs devtmpfs dev
mount --rbind /run run
pivot_root . mnt
exec > /dev/console 2>&1
exec /mnt/usr/sbin/chroot . /usr/lib/systemd/systemd-shutdown poweroff --log-level 6 --log-target console
"""


def test_the_volume_of_the_root_is_closed_with_all_it_is_on(tree: Path, tmp_path: Path) -> None:
    """In an initrd without systemd, where nothing in /run may be run; the volume has integrity."""
    disk = Disk(blank_disk(tmp_path / "root.img", 96 << 20), "root")
    volume = machines.exec_volume("root", disk.device, integrity=True).replace("makefs", "auto_open = true\nmakefs")
    script = f"""
{machines.NO_VOLUMES}
{volume}
{LIST}
cryptpilot init root --yes
touch /etc/initrd-release
mount -o remount,noexec /run
cryptpilot boot-service --stage initrd
ls /sys/block | grep -c dm-
status=0; unshare --mount --pid --fork bash -eu << 'END OF PROCESS' || status=$?
{TURN_OFF}
END OF PROCESS
echo "$status"
ls /sys/block | grep -c dm- || :
"""
    result = run_uml(tree, script, disks=[disk], timeout=120).check()
    before, status, after = result.stdout.splitlines()[-3:]
    # 130: SIGINT is how the kernel turns a process namespace off
    assert (before, status, after) == ("2", "130", "0"), result
    assert GONE_OVER in result.console, result
    require_nothing_left(result.console)
