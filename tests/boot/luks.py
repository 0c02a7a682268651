"""What a host-only image has of the LUKS disks that dracut's own module finds on the machine that makes it."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

from tests import machines
from tests.lab.tree import clone, in_chroot, kernel_release

if TYPE_CHECKING:
    from pathlib import Path

FOREIGN = "foreign"
_DIRECTORY = "/dev/lab-luks"  # nothing but memory in a chroot of the lab
_CHEAP = "--pbkdf pbkdf2 --pbkdf-force-iterations 1000"
_MODULE = machines.CHECKOUT / "tests/boot/89lab-luks"
_LATE = """\
volume = "{name}"
dev = "{directory}/{name}"
auto_open = true
initrd = false
makefs = "swap"
[encrypt.otp]
"""


def require_volumes_left_alone(tree: Path, work: Path, *disks: str) -> None:
    """Make a host-only image where LUKS disks are in use; fail unless dracut's own module leaves volumes alone.

    All but `FOREIGN` are volumes, and are not for the initrd.
    """
    copy = clone(tree, work / "luks-tree")
    shutil.copytree(_MODULE, copy / "usr/lib/dracut/modules.d" / _MODULE.name)
    for path in (copy / "etc/cryptpilot/volumes").iterdir():
        path.unlink()
    volumes = {name: _LATE.format(name=name, directory=_DIRECTORY) for name in disks if name != FOREIGN}
    machines.configure(copy, volumes)
    (copy / "etc/crypttab").write_text("".join(f"old-{name} {_DIRECTORY}/{name} none luks,force\n" for name in disks))
    image = f"/boot/initrd.img-{kernel_release(copy)}"
    script = f"""set -e
mkdir {_DIRECTORY}
for name in {" ".join(disks)}; do
    truncate -s 20M {_DIRECTORY}/$name
    [ $name = {FOREIGN} ] && whose=anaconda || whose=cryptpilot-otp
    echo x | cryptsetup luksFormat -q --type luks2 --subsystem $whose {_CHEAP} {_DIRECTORY}/$name -
    echo "disk $(cryptsetup luksUUID {_DIRECTORY}/$name) $name"
done
dracut --force --hostonly --modules 'base crypt cryptpilot lab-luks' {image} {kernel_release(copy)} 2>&1
echo "parameters $(lsinitrd {image} -f etc/cmdline.d/90crypt.conf)"
echo "crypttab $(echo $(lsinitrd {image} -f etc/crypttab))"
echo "claimed $(echo $(lsinitrd {image} -f usr/libexec/cryptpilot/claim/devices))"
echo "uuids $(echo $(lsinitrd {image} -f usr/libexec/cryptpilot/claim/uuids))"
echo "lists $(lsinitrd {image} | grep -c '90crypt.conf$')"
cryptpilot initrd check {image} 2>&1"""
    said = in_chroot(copy, ["bash", "-c", script])
    names = dict(re.findall(r"^disk (\S+) (\S+)$", said, re.MULTILINE))
    [parameters] = re.findall(r"^parameters ?(.*)$", said, re.MULTILINE)
    left = {names[word.partition("=luks-")[2]] for word in parameters.split()}
    assert left == {FOREIGN} & set(disks), said
    # an empty file would ask for all disks there are no more than none does, and is none
    assert f"\nlists {len(left)}\n" in said
    # what was left over in crypttab goes too, and what the kernel command line may say is claimed
    [crypttab] = re.findall(r"^crypttab ?(.*)$", said, re.MULTILINE)
    assert re.findall(r"old-(\S+)", crypttab) == [name for name in disks if name == FOREIGN], said
    ours = [name for name in disks if name != FOREIGN]
    assert f"\nclaimed {' '.join(f'lab-luks/{name}' for name in ours)}\n" in said
    uuids = {name: uuid.replace("-", "") for uuid, name in names.items()}
    assert f"\nuuids {' '.join(uuids[name] for name in ours)}\n" in said
