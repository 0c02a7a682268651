"""Every command that hands another program a file works where SELinux is enforced, for a service and an administrator.

In user-mode Linux, whose kernel has SELinux too: there a machine with Debian's policy is up in seconds.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests import machines
from tests.lab import selinux
from tests.lab.disk import Disk, blank_disk
from tests.lab.image import make_ext4, prune
from tests.lab.run import run
from tests.lab.tree import kernel_release
from tests.lab.uml import run_uml

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.matrix

MIB = 1 << 20
ENFORCE = f"""
mount /dev/disk/by-id/virtio-system /mnt
for point in dev proc sys run; do mount --rbind /$point /mnt/$point; done
mount -t selinuxfs selinuxfs /sys/fs/selinux
dmesg --console-level alert
echo 0 > /proc/sys/kernel/printk_ratelimit # each denial is to be logged
chroot /mnt load_policy -i
echo 0 > /sys/fs/selinux/enforce # from here no transition leads to what systemd starts
# as systemd does when it has loaded the policy
chroot /mnt setfiles -F {selinux.CONTEXTS} /dev
chcon system_u:object_r:var_run_t:s0 /run
cat > /mnt/as << 'END'
context=$1
shift
exec runcon "$context" /bin/bash -euc 'echo 1 > /sys/fs/selinux/enforce; "$@"' as "$@"
END
as() {{
    local context=$1 ended=0
    shift
    chroot /mnt bash /as "$context" "$@" || ended=$?
    echo 0 > /sys/fs/selinux/enforce # or else not even this script's end can be written down
    return $ended
}}
service() {{ as system_u:system_r:initrc_t:s0 "$@"; }}
person() {{ as unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023 "$@"; }}
"""
COMMANDS = """
service getenforce
service cryptpilot boot-service --stage system scratch
person cryptpilot close scratch
person cryptpilot init sealed --yes
service cryptpilot open sealed
person cryptpilot header backup sealed /root/backup
person bash -c 'cryptpilot recovery-key sealed > /root/way-back'
person bash -c 'cryptpilot recovery-key --replace sealed > /root/way-back'
person cryptpilot close sealed
person bash -c 'cryptpilot open sealed --recovery-key < /root/way-back'
service cryptpilot resize sealed
service cryptpilot close sealed
person cryptpilot header restore sealed /root/backup --yes
person cryptpilot open sealed
person cryptpilot config check
service cryptpilot show
service cryptpilot initrd rebuild --kernel {kernel}
chroot /mnt matchpathcon -V /boot/initrd.img-{kernel}
dmesg >&2
"""
GENERATE = """
cat > /mnt/etc/cryptpilot/volumes/later.toml << 'END'
{file}
END
chmod 600 /mnt/etc/cryptpilot/volumes/later.toml
echo '/dev/mapper/later /srv ext4 rw 0 2' > /mnt/etc/fstab
mkdir -p /run/systemd/normal /run/systemd/early /run/systemd/late
chroot /mnt restorecon -R -F /run/systemd
service cryptpilot generator /run/systemd/normal /run/systemd/early /run/systemd/late
cat /run/systemd/early/srv.mount
dmesg >&2
"""


@pytest.fixture
def system(lab: None, tmp_path: Path) -> Disk:  # noqa: ARG001
    """A disk with the product installed and all labels."""
    tree = machines.installed_tree(tmp_path / "tree", selinux.PACKAGES)
    sealed = machines.exec_file("sealed", "/dev/disk/by-id/virtio-sealed", key="/etc/lab-key", integrity=True)
    machines.configure(tree, {"scratch": machines.scratch_file(), "sealed": sealed})
    (tree / "etc/lab-key").write_bytes(machines.EXEC_KEY)
    root = prune(tree, tmp_path / "pruned")
    run(["cp", "-a", tree / "usr/lib/dracut", root / "usr/lib"])
    (root / f"boot/initrd.img-{kernel_release(root)}").touch()
    selinux.label(root)
    return Disk(make_ext4(tmp_path / "system.img", root, 768 * MIB), "system")


def test_no_command_is_kept_from_its_files(tree: Path, system: Disk, tmp_path: Path) -> None:
    disks = [Disk(blank_disk(tmp_path / f"{name}.img", 64 * MIB), name) for name in ("scratch", "sealed")]
    commands = COMMANDS.format(kernel=kernel_release(tmp_path / "pruned"))
    result = run_uml(tree, ENFORCE + commands, disks=[system, *disks], timeout=900).check()
    assert result.stdout.startswith("Enforcing\n")
    assert "sealed: /dev/mapper/sealed is open" in result.stdout
    assert re.search(r": rebuilt \(.* MiB\)", result.stdout)
    assert result.stdout.endswith(" verified.\n")
    selinux.require_none_of_ours(result.stderr)


def test_systemd_s_generator_is_given_lines_of_fstab(
    tree: Path, site: machines.Site, system: Disk, tmp_path: Path
) -> None:
    disks = [system, Disk(blank_disk(tmp_path / "scratch.img", 64 * MIB), "scratch")]
    file = f"initrd = false\n{machines.volume_file(site, volume='later')}"
    result = run_uml(tree, ENFORCE + GENERATE.format(file=file), disks=disks).check()
    assert "Requires=systemd-fsck@dev-mapper-later.service\n" in result.stdout
    assert not [denial.text for denial in selinux.denials(result.stderr) if denial.is_ours]
