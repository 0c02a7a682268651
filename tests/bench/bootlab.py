"""The machines of the boots question: one system, one set of volumes, and an image for each who is to open them.

What is timed is read from the machine's own clocks: udev's, the initrd's journal, the agent's event log. A machine
that is there for its initrd alone is turned off at the end of that.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests import machines
from tests.bench.unlock import PEERS
from tests.lab import net, qemu
from tests.lab import tree as trees
from tests.lab.disk import Disk, blank_disk
from tests.lab.image import make_ext4, prune
from tests.lab.run import LabError, contained, end, run, spawn
from tests.lab.uml import run_uml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.bench.workshop import Workshop

COUNTS = (1, 4, 8)
MOST = COUNTS[-1]
MIB = 1 << 20
KEY = "/etc/lab-key"
TANG_PORT = "7500"
TIMEOUT = 240.0
MODULE = Path(__file__).with_name("96lab-bench")
NETWORK = "rd.neednet=1 ip=dhcp"
UP = r"Reached target .*multi-user\.target"
PIVOT = r"Starting .*initrd-switch-root\.service"


@dataclass(frozen=True)
class Initrd:
    """What happened in an initrd, in seconds since power-on.

    disks: udev knew the last of the volumes' disks. begun: systemd started the first systemd-cryptsetup. network: the
    address was there. opened: udev had made the last volume's link. None for what did not happen. floor: seconds that
    `cryptsetup open` took for several volumes at once, by their number.
    """

    disks: float
    begun: float | None
    network: float | None
    opened: float
    events: tuple[dict[str, Any], ...]
    floor: Mapping[int, tuple[float, ...]]

    def event(self, step: str) -> dict[str, Any]:
        """Return the last event of a step that says how it ended, or the moment."""
        return [one for one in self.events if one["step"] == step and one["phase"] in ("end", "note")][-1]

    def at(self, step: str) -> float:
        """Return when that was."""
        return float(self.event(step)["boot"])


@dataclass(frozen=True)
class Whole:
    """The boot of a whole system, in seconds since power-on by this machine's clock.

    processor: seconds of processor time the agent took, None without one.
    """

    pivot: float
    up: float
    processor: float | None


class Lab:
    """What is made once for all of the boots."""

    def __init__(self, shop: Workshop) -> None:
        self._shop = shop
        self._work = shop.directory("boots")
        self._site = replace(shop.site, secret_names=(machines.SECRET_NAME, *(f"secret{n}" for n in range(MOST))))
        self._key = base64.b64decode(self._site.secret)

    @cached_property
    def _disks(self) -> list[Disk]:
        """The volumes, made by `cryptpilot init`: KMS and the key file have the same secret for them."""
        disks = [Disk(blank_disk(self._work / f"d{n}.img", 32 * MIB), f"d{n}") for n in range(MOST)]
        tree = self._tree("init", {f"v{n}": machines.exec_file(f"v{n}", disk.device) for n, disk in enumerate(disks)})
        script = f"base64 -d <<< {base64.b64encode(self._key).decode()} > /run/key\n"
        run_uml(tree, script + f"cryptpilot init {_names(MOST)} --yes", disks=disks, timeout=300).check()
        return disks

    @cached_property
    def _clevis_disks(self) -> list[Disk]:
        """The same volumes, bound to a tang server and without their first key."""
        share = self._work / "tang"
        share.mkdir()
        (share / "key").write_bytes(self._key)
        disks = []
        for disk in self._disks:
            run(["cp", "--sparse=always", disk.path, share / disk.path.name])
            disks.append(replace(disk, path=share / disk.path.name))
        where = json.dumps({"url": f"http://{net.LOOPBACK_IN_GUEST}:{TANG_PORT}", "adv": "/srv/advertisement"})
        script = f"""
cd /srv
mkdir keys
/usr/libexec/tangd-keygen keys
ip link set lo up
{_TANGD} &
until curl --silent --fail --output advertisement http://127.0.0.1:{TANG_PORT}/adv; do sleep 0.1; done
for disk in d*.img; do
    clevis luks bind -y -k key -d $disk tang '{where}'
    cryptsetup luksKillSlot --batch-mode $disk 0
done
kill %1
"""
        trees.in_chroot(self._peers_tree, ["bash", "-euc", script], share=share)
        return disks

    @cached_property
    def _peers_tree(self) -> Path:
        """A tree with clevis and tang, and without the product."""
        tree = trees.clone(trees.root_tree("bookworm", PEERS), self._work / "peers")
        return _with_module(tree)

    @cached_property
    def _root(self) -> Disk:
        """An ordinary root disk, whose system knows of no volume."""
        root = prune(self._shop.tree, self._work / "root")
        run(["rm", "-r", root / "etc/cryptpilot"])
        wants = root / "etc/systemd/system/multi-user.target.wants"
        for unit in ("lab-steps.service", "lab-report.service"):
            (wants / unit).unlink()
        shutil.copy(MODULE / "lab-bench.sh", root / "usr/local/sbin/lab-bench")
        shutil.copy(MODULE / "lab-end.service", root / "etc/systemd/system")
        (wants / "lab-end.service").symlink_to("/etc/systemd/system/lab-end.service")
        return Disk(make_ext4(self._work / "root.img", root, 512 * MIB), "plain")

    def _tree(self, name: str, volumes: Mapping[str, str]) -> Path:
        tree = trees.clone(self._shop.tree, self._work / f"tree-{name}")
        (tree / "etc/cryptpilot/volumes/root.toml").unlink()
        machines.configure(tree, volumes, machines.settings(timeout=120))
        return _with_module(tree)

    def _image(self, name: str, volumes: Mapping[str, str]) -> Path:
        tree = self._tree(name, volumes)
        return machines.make_image(tree, self._work / f"{name}.img", "--add", "lab-bench").path

    def _kms_file(self, number: int, secret: str) -> str:
        dev = f"/dev/disk/by-id/virtio-d{number}"
        return machines.volume_file(self._site, volume=f"v{number}", dev=dev, secret_name=secret)

    @cached_property
    def own(self) -> Path:
        """An image with KMS volumes, each with a secret of its own."""
        return self._image("own", {f"v{n}": self._kms_file(n, f"secret{n}") for n in range(MOST)})

    @cached_property
    def shared(self) -> Path:
        """An image with KMS volumes, all with one secret."""
        return self._image("shared", {f"v{n}": self._kms_file(n, machines.SECRET_NAME) for n in range(MOST)})

    @cached_property
    def otp(self) -> Path:
        """An image with one temporary volume."""
        text = 'volume = "v0"\ndev = "/dev/disk/by-id/virtio-d0"\nauto_open = true\nmakefs = "ext4"\n[encrypt.otp]\n'
        return self._image("otp", {"v0": text})

    @cached_property
    def none(self) -> Path:
        """An image without the product, otherwise the same."""
        tree = _with_module(trees.clone(self._shop.tree, self._work / "tree-none"))
        options = ("--omit", "cryptpilot", "--add", "lab-bench")
        return machines.make_image(tree, self._work / "none.img", *options).path

    @cached_property
    def _clevis(self) -> Path:
        options = ("--add", "clevis clevis-pin-tang lab-bench")
        return machines.make_image(self._peers_tree, self._work / "clevis.img", *options).path

    def key_file(self, count: int) -> Path:
        """Return an image where systemd-cryptsetup opens volumes with a key file."""
        lines = "".join(f"v{n} /dev/disk/by-id/virtio-d{n} {KEY} luks,x-initrd.attach\n" for n in range(count))
        return self._with_files(self.none, {"etc/crypttab": lines.encode(), KEY.lstrip("/"): self._key})

    def clevis(self, count: int) -> Path:
        """Return an image where systemd-cryptsetup asks for passwords, and clevis answers."""
        lines = "".join(f"v{n} /dev/disk/by-id/virtio-d{n} none luks,x-initrd.attach\n" for n in range(count))
        return self._with_files(self._clevis, {"etc/crypttab": lines.encode()})

    def _with_files(self, image: Path, files: Mapping[str, bytes]) -> Path:
        """Append an archive to an image: the kernel unpacks one after the other."""
        added = self._work / "added"
        shutil.rmtree(added, ignore_errors=True)
        for name, content in files.items():
            path = added / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            path.chmod(0o600)
        archive = self._work / "added.cpio"
        run(["sh", "-c", f"cd {added} && find . | cpio --quiet -o -H newc > {archive}"])
        result = self._work / "with-files.img"
        data = image.read_bytes()
        # an archive begins at a multiple of four bytes
        result.write_bytes(data + bytes(-len(data) % 4) + archive.read_bytes())
        return result

    def boot(self, image: Path, arguments: str, *, network: bool) -> Whole:
        """Boot a whole system, which ends itself, and return what was seen of it."""
        disk = Disk(self._work / "root-copy.img", self._root.name)
        run(["cp", "--sparse=always", self._root.path, disk.path])
        scratch = Disk(self._work / "scratch.img", "d0")
        # a temporary volume wants a disk that holds nothing, and KMS has no business with such a one
        if image == self.otp:
            blank_disk(scratch.path, 32 * MIB)
        else:
            run(["cp", "--sparse=always", self._disks[0].path, scratch.path])
        with self._servers(kms=network):
            result, report = self._run(image, f"rw {arguments}", (disk, scratch))
        pivot, up = result.at(PIVOT), result.at(UP)
        if pivot is None or up is None:
            raise LabError(f"the console does not tell of the pivot or of the end\n{result}")
        done = [event for event in _events(report) if event["step"] == "done"]
        return Whole(pivot, up, done[0]["facts"]["cpu"] if done else None)

    def initrd(self, image: Path, count: int, arguments: str = "", *, tang: bool = False, kms: bool = False) -> Initrd:
        """Boot to the end of the initrd with so many volumes, and return what happened."""
        disks = (self._clevis_disks if tang else self._disks)[:count]
        with self._servers(kms=kms, tang=tang):
            result, report = self._run(image, f"ro lab.volumes={count} {arguments}", (self._root, *disks))
        return _read(report, count, result)

    def _run(self, image: Path, arguments: str, disks: tuple[Disk, ...]) -> tuple[qemu.BootResult, dict[str, str]]:
        report = machines.report_disk(self._work / "report.img")
        machine = qemu.Machine(
            kernel=trees.kernel(self._shop.tree),
            initrd=image,
            cmdline=f"{qemu.CONSOLE} root={self._root.device} {arguments}",
            disks=(*disks, report),
            netns=self._network,
            smp=2,
        )
        result = qemu.boot(machine, timeout=TIMEOUT, log=self._work / "console.log").check()
        return result, machines.read_report(report)

    _network: net.Namespace | None = None

    @contextlib.contextmanager
    def _servers(self, *, kms: bool = False, tang: bool = False) -> Iterator[None]:
        """Run what a machine is to find in its network; without either it has none."""
        if not (kms or tang):
            yield
            return
        with contextlib.ExitStack() as stack:
            self._network = stack.enter_context(net.namespace())
            stack.callback(self._unplug)
            if kms:
                stack.enter_context(machines.running_kms(self._site, self._network))
            if tang:
                stack.enter_context(self._running_tang(self._network))
            yield

    def _unplug(self) -> None:
        self._network = None

    @contextlib.contextmanager
    def _running_tang(self, network: net.Namespace) -> Iterator[None]:
        chroot_script = Path(trees.__file__).with_name("chroot.sh")
        chroot = ["sh", str(chroot_script), str(self._peers_tree), trees.SHARE, str(self._work / "tang")]
        script = f"cd {trees.SHARE}; exec {_TANGD}"
        process = spawn(
            network.command(contained([*chroot, "sh", "-c", script], "--mount")),
            stderr=subprocess.DEVNULL,  # a line for each request
            env={**os.environ, "PATH": trees.PATH},
        )
        try:
            yield
        finally:
            end(process)


_TANGD = f"socat TCP-LISTEN:{TANG_PORT},bind=127.0.0.1,fork,reuseaddr EXEC:'/usr/libexec/tangd keys'"
"""What systemd does with tangd.socket: a process for each connection."""


def only(count: int) -> str:
    """Return what has the agent open so many of the image's volumes."""
    return " ".join(f"rd.cryptpilot.volume=v{n}" for n in range(count))


def _names(count: int) -> str:
    return " ".join(f"v{n}" for n in range(count))


def _with_module(tree: Path) -> Path:
    shutil.copytree(MODULE, tree / "usr/lib/dracut/modules.d" / MODULE.name)
    return tree


def _read(report: Mapping[str, str], count: int, result: qemu.BootResult) -> Initrd:
    """Find the moments in what the machine left."""
    opened: dict[str, float] = {}
    for event in report["udev"].split("\n\n"):
        found = re.search(r"^UDEV +\[([\d.]+)\] change", event, re.MULTILINE)
        name = re.search(r"^DM_NAME=(v\d)$", event, re.MULTILINE)
        if found and name:
            opened.setdefault(name[1], float(found[1]))
    if len(opened) != count:
        raise LabError(f"{count} volumes were to be opened, udev saw {sorted(opened)}\n{result}")
    disks = [
        int(found[1]) / 1e6
        for device in report["devices"].split("\n\n")
        if re.search(r"^S: disk/by-id/virtio-d\d$", device, re.MULTILINE)
        and (found := re.search(r"^E: USEC_INITIALIZED=(\d+)$", device, re.MULTILINE))
    ]
    floor: dict[int, tuple[float, ...]] = {}
    for line in report.get("floor", "").splitlines():
        number, begun, ended = line.split()
        floor[int(number)] = (*floor.get(int(number), ()), float(ended) - float(begun))
    return Initrd(
        disks=max(disks),
        begun=_first(report["journal"], r"systemd\[1\]: Starting systemd-cryptsetup@"),
        network=_first(report["journal"], r"systemd-networkd\[\d+\]: \S+: DHCPv4 address"),
        opened=max(opened.values()),
        events=_events(report),
        floor=floor,
    )


def _events(report: Mapping[str, str]) -> tuple[dict[str, Any], ...]:
    return tuple(json.loads(line) for line in report.get("events.jsonl", "").splitlines())


def _first(journal: str, pattern: str) -> float | None:
    """Return when the journal first has a message, None if it never does."""
    found = re.search(rf"^\[ *([\d.]+)\] \S+ {pattern}", journal, re.MULTILINE)
    return float(found[1]) if found else None
