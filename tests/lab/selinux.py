"""SELinux in the lab: a Debian tree that enforces Debian's policy from its first boot, and what was denied in it.

The labels are put on the tree out here, as extended attributes, which `make_ext4` and `make_archive` carry over.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.lab.tree import SHARE, in_chroot

if TYPE_CHECKING:
    from pathlib import Path

PACKAGES = ("selinux-policy-default", "policycoreutils")
WORDS = "security=selinux enforcing=1 sysctl.kernel.printk_ratelimit=0"
"""What has the kernel enforce the policy, and log each denial."""
PERSON = "runcon unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023 "
"""How a command begins that an administrator types who has logged in: the lab's steps are a service's."""
CONTEXTS = "/etc/selinux/default/contexts/files/file_contexts"

_DOMAINS = frozenset(
    {
        *("init_t", "initrc_t", "kernel_t", "systemd_generator_t", "unconfined_t"),
        *("fsadm_t", "insmod_t", "kmod_t", "lvm_t", "mount_t", "bootloader_t"),
    }
)
"""What the product runs in, and the programs that it starts. Debian's own services are denied things all the time."""
_OURS = re.compile(r"cryptpilot|/run/initramfs|luks2-header|6C756B73322D686561646572")
"""In names of files and processes; the last is a file in memory as the kernel writes a name with blanks."""
_LABS = re.compile(r'path="/run/lab-')
_HARMLESS = frozenset(
    {
        # Debian's policy keeps every cryptsetup that a service starts from the session's keyring, not needed.
        ("cryptsetup", "search", "key"),
        # It asks the file system of a header how to read from it, and takes pages where it gets no answer. Nothing else
        # that is in memory may be asked either.
        ("cryptsetup", "getattr", "filesystem"),
    }
)


@dataclass(frozen=True)
class Denial:
    """What the kernel has logged of something that the policy does not allow. text: all of it."""

    text: str

    def _field(self, name: str) -> str:
        found = re.search(rf'\b{name}="?([^" ]+)', self.text)
        return found[1] if found else ""

    @property
    def domain(self) -> str:
        """The type of the process."""
        return self._field("scontext").split(":")[2]

    @property
    def is_ours(self) -> bool:
        """Whether it has to do with the product."""
        return not _LABS.search(self.text) and (self.domain in _DOMAINS or bool(_OURS.search(self.text)))

    @property
    def is_harmless(self) -> bool:
        """Whether it is one of those that Debian's policy has for cryptsetup, whoever starts it."""
        rights = re.findall(r"denied +\{ ([^}]+) \}", self.text)
        return {(self._field("comm"), right, self._field("tclass")) for right in rights} <= _HARMLESS


LABEL = f"chroot /mnt setfiles -e /dev -e /proc -e /sys -e /boot/efi {CONTEXTS} /"
"""A shell line that labels a system at /mnt."""


def enforce(tree: Path) -> None:
    """Have a tree enforce its policy."""
    config = tree / "etc/selinux/config"
    config.write_text(config.read_text().replace("SELINUX=permissive", "SELINUX=enforcing"))


def label(tree: Path) -> None:
    """Have a tree enforce its policy, and give all its files their labels; nothing may be changed afterwards."""
    enforce(tree)
    in_chroot(tree, ["setfiles", "-r", SHARE, CONTEXTS, SHARE], share=tree)


def denials(*logs: str) -> list[Denial]:
    """Return what was denied, by the kernel's word, in a console's output and a journal; each once."""
    found = {match[0] for log in logs for match in re.finditer(r"avc: +denied .* permissive=0", log)}
    return [Denial(text) for text in sorted(found)]


def require_none_of_ours(*logs: str) -> None:
    """Fail if anything was denied that has to do with the product. logs: a console's output, a journal."""
    found = denials(*logs)
    assert found, "no denial at all was logged, though cryptsetup always has some"
    ours = [one.text for one in found if one.is_ours and not one.is_harmless]
    assert not ours, "\n".join(ours)
