"""A stand-in for the systems of Enterprise Linux: Debian testing, whose GRUB reads boot loader entries, laid out so.

Their own images cannot be had here. Of theirs it has: the names grub2-*, /boot/grub2, initramfs-RELEASE.img, an entry
for each kernel and one for rescue, kernel parameters in the environment block or in the entries and
/etc/kernel/cmdline, grub.cfg that has entries read, and for UEFI a GRUB that is not made in the system and finds /boot
by a grub.cfg beside it. Not of theirs: all that is in their packages.
"""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

from tests.lab.run import run
from tests.lab.tree import in_chroot, kernel_release

if TYPE_CHECKING:
    from pathlib import Path

LINKED = re.compile(r"usr/lib/modules/[^/]+/(config|vmlinuz)")
"""What Debian testing has hard links to in /boot, which end where that moves."""
MACHINE = "a0284538aa5b498cb38b8e530b2a6be4"
VENDOR = "almalinux"
WORDS = "ro console=ttyS0 panic=-1"
PROGRAMS = {"sbin": ("grub-install", "grub-mkconfig", "grub-probe"), "bin": ("grub-editenv", "grub-mkrelpath")}
MAKES_ENTRIES_READ = """\
#!/bin/sh
# Instead of GRUB's own 10_linux, as Enterprise Linux has it.
set -e
. /usr/share/grub/grub-mkconfig_lib
root="$GRUB_DEVICE"
[ "$GRUB_DISABLE_LINUX_UUID" = true ] || root="UUID=$GRUB_DEVICE_UUID"
prepare_grub_to_access_device "$GRUB_DEVICE_BOOT"
cat << END
if [ -z "\\${kernelopts}" ]; then
  set kernelopts="root=$root ro $GRUB_CMDLINE_LINUX "
fi
insmod blsuki
blscfg
END
"""


def lay_out(tree: Path, *, variable: bool, boot: str) -> None:
    """Lay a tree of Debian testing out so; @ROOT@ stands for the UUID of its root's file system.

    variable: whether kernel parameters are in the environment block. boot: the path of /boot in its file system.
    """
    release = kernel_release(tree)
    for directory, names in PROGRAMS.items():
        for name in names:
            (tree / "usr" / directory / name.replace("grub-", "grub2-")).symlink_to(name)
    (tree / "boot/grub2").mkdir()
    (tree / "boot/grub").symlink_to("grub2")
    (tree / "etc/grub.d/10_linux").write_text(MAKES_ENTRIES_READ)
    (tree / "etc/machine-id").write_text(f"{MACHINE}\n")
    if not boot:
        _part(tree / "usr/lib/modules" / release)
    entries = tree / "boot/loader/entries"
    entries.mkdir(parents=True)
    words = "$kernelopts $tuned_params" if variable else f"root=UUID=@ROOT@ {WORDS}"
    kernels = {release: f"{MACHINE}-{release}"}
    if not variable:
        rescue = f"0-rescue-{MACHINE}"
        kernels[rescue] = f"{MACHINE}-0-rescue"
        run(["cp", tree / f"boot/vmlinuz-{release}", tree / f"boot/vmlinuz-{rescue}"])
        (tree / f"boot/initramfs-{rescue}.img").write_text("an image without cryptpilot\n")
        (tree / "etc/kernel").mkdir(exist_ok=True)
        (tree / "etc/kernel/cmdline").write_text(f"root=UUID=@ROOT@ {WORDS}\n")
    for name, file in kernels.items():
        (entries / f"{file}.conf").write_text(
            f"title Stand-in ({name})\nversion {name}\nlinux {boot}/vmlinuz-{name}\n"
            f"initrd {boot}/initramfs-{name}.img $tuned_initrd\noptions {words}\nid {file}\n"
            "grub_users $grub_users\ngrub_arg --unrestricted\ngrub_class kernel\n"
        )
    in_chroot(tree, ["dracut", "--no-hostonly", "--force", f"/boot/initramfs-{release}.img", release])


def _part(modules: Path) -> None:
    """Make copies of what has a hard link in /boot, which is on another file system."""
    for path in modules.iterdir():
        if path.is_file() and path.stat().st_nlink > 1:
            copy = path.with_name(f"{path.name}.copy")
            shutil.copy2(path, copy)
            copy.replace(path)


def install(*, variable: bool, boot: str) -> str:
    """Return shell lines that install GRUB in a system at /mnt, on the loop device $loop. boot: as of `lay_out`."""
    device = "${loop}p1" if boot else "${loop}p2"
    modules = "part_gpt fat ext2 search configfile normal linux blsuki loadenv test echo serial terminal all_video gzio"
    own = f"root=UUID=$(uuid ${{loop}}p1) {WORDS}"
    return f"""
root=$(uuid ${{loop}}p1)
sed -i "s/@ROOT@/$root/" /mnt/boot/loader/entries/*.conf $(ls /mnt/etc/kernel/cmdline || true)
chroot /mnt grub2-editenv /boot/grub2/grubenv create
{f'chroot /mnt grub2-editenv /boot/grub2/grubenv set kernelopts="{own}"' if variable else ""}
chroot /mnt grub2-install --target=i386-pc $loop
mkdir -p /mnt/boot/efi/EFI/BOOT /mnt/boot/efi/EFI/{VENDOR}
chroot /mnt grub-mkimage -O x86_64-efi -p /EFI/{VENDOR} -o /boot/efi/EFI/BOOT/BOOTX64.EFI {modules}
cat > /mnt/boot/efi/EFI/{VENDOR}/grub.cfg << END
search --no-floppy --fs-uuid --set=dev $(uuid {device})
set prefix=(\\$dev){boot}/grub2

export \\$prefix
configfile \\$prefix/grub.cfg
END
"""


SHOW = """
cat /run/out/boot/loader/entries/*.conf /run/out/etc/default/grub
cat /run/out/etc/kernel/cmdline || true
chroot /run/out grub2-editenv /boot/grub2/grubenv list
cd /run/out/boot
for image in initramfs-0-rescue-*.img; do
    ! [ -e $image ] || { cmp $image $(ls initramfs-[1-9]*.img) && echo "the rescue image is the kernel's"; }
done
cd /
"""
"""Shell lines that show what GRUB reads in a system that was converted, with its root and /boot at /run/out."""


def require_mended(said: str, *, variable: bool) -> None:
    """Fail unless what `SHOW` says is as it should be."""
    assert "root=UUID" not in said
    root = f"root=/dev/mapper/root {WORDS}\n"
    assert "\nGRUB_DEVICE=/dev/mapper/root\n" in said
    if variable:
        assert "\noptions $kernelopts $tuned_params\n" in said
        assert f"\nkernelopts={root}" in said
    else:
        assert said.count(f"options {root}") == 2
        assert f"\n{root}" in said
        assert "\nlinux /vmlinuz-" in said
        assert "the rescue image is the kernel's" in said
