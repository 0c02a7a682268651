"""What a machine is made of, and what QEMU is told for that."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab import tpm

if TYPE_CHECKING:
    from tests.lab.disk import Disk
    from tests.lab.net import Namespace

OVMF = Path("/usr/share/OVMF")
"""Where Debian's package ovmf has its firmware."""
FREE_SLOT = "free"
"""The port that a disk can be plugged into while the machine runs."""


@dataclass(frozen=True)
class Machine:
    """What a machine is made of.

    Without `netns` it has no network card. With one it gets an address by DHCP from QEMU, IPv4 only, as in
    most of the cloud's networks; `link_up_after` seconds after power-on the cable is plugged in; with `silent` nobody
    is at the other end. Two machines with one processor each take half the time of two with two, one after the other.
    Without `kernel` its firmware starts what is on the first disk: SeaBIOS, or OVMF with `uefi`.
    With `snapshot` nothing is written to the disks' image files. clock: what the hardware's clock says at power-on, as
    "2021-11-23T00:00:00", in UTC; without it the same as this machine's. tpm: whether it has a TPM 2.0, which is new
    unless this is the directory of one.
    secure_boot: whether OVMF starts only what is signed by the key that Debian's package has for tests.
    """

    kernel: Path | None
    initrd: Path | None
    cmdline: str
    disks: tuple[Disk, ...] = ()
    memory_mb: int = 2048
    smp: int = 1
    netns: Namespace | None = None
    link_up_after: float = 0
    silent: bool = False
    snapshot: bool = False
    clock: str = "utc"
    uefi: bool = False
    tpm: bool | Path = False
    secure_boot: bool = False


def command_line(machine: Machine, qmp: int, control: int | None) -> list[str]:
    """Return the command line that turns a machine on.

    qmp: the descriptor of a socket for the monitor. control: that of a TPM's, None without one.
    """
    return [
        "qemu-system-x86_64",
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-machine", "q35,smm=on" if machine.secure_boot else "q35"),
        *("-accel", "tcg,thread=multi"),
        # Told that byte-wise string instructions are fast, a kernel clears its pages with them; here they are emulated,
        # byte by byte.
        *("-cpu", "max,-erms,-fsrm"),
        *("-smp", str(machine.smp)),
        *("-m", str(machine.memory_mb)),
        *("-rtc", f"base={machine.clock}"),
        *(_firmware(machine.secure_boot) if machine.uefi else ()),
        *(tpm.options(control) if control is not None else ()),
        *(("-kernel", str(machine.kernel), "-append", machine.cmdline) if machine.kernel else ()),
        *(("-initrd", str(machine.initrd)) if machine.initrd else ()),
        *("-serial", "stdio"),
        # The clock stands still until the monitor is connected.
        *("-chardev", f"socket,id=qmp,fd={qmp}", "-mon", "chardev=qmp,mode=control", "-S"),
        *("-object", "rng-random,id=random,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=random"),
        *(argument for number, disk in enumerate(machine.disks) for argument in _disk(machine, number, disk)),
        *(_network(machine.silent) if machine.netns else ()),
        # The machine's own bus takes nothing while it runs.
        *("-device", f"pcie-root-port,id={FREE_SLOT}"),
    ]


def _firmware(secure_boot: bool) -> list[str]:
    """Put OVMF into a machine; what it writes to its variables is forgotten."""
    code, variables = (".secboot", ".snakeoil") if secure_boot else ("", "")
    parts = ((f"OVMF_CODE_4M{code}.fd", "readonly=on"), (f"OVMF_VARS_4M{variables}.fd", "snapshot=on"))
    drives = (f"if=pflash,format=raw,file={OVMF / name},{option}" for name, option in parts)
    guarded = ("-global", "driver=cfi.pflash01,property=secure,value=on") if secure_boot else ()
    return [*guarded, *(argument for drive in drives for argument in ("-drive", drive))]


def _disk(machine: Machine, number: int, disk: Disk) -> list[str]:
    options = {
        "if": "none",
        "id": f"disk{number}",
        "file": str(disk.path).replace(",", ",,"),
        "format": "raw",
        "cache": "unsafe",
        "readonly": "on" if disk.readonly else "off",
        "snapshot": "on" if machine.snapshot else "off",
    }
    device = "nvme" if disk.nvme else "virtio-blk-pci"
    # A kernel that is given is itself first in the firmware's order.
    order = () if machine.kernel else (f"bootindex={number}",)
    return [
        *("-drive", ",".join(f"{name}={value}" for name, value in options.items())),
        *("-device", ",".join([device, f"drive=disk{number}", f"serial={disk.name}", *order])),
    ]


def _network(silent: bool) -> list[str]:
    return [
        *("-netdev", "hubport,id=net,hubid=0" if silent else "user,id=net,ipv6=off"),
        # No firmware: nothing boots from the network here.
        *("-device", "virtio-net-pci,netdev=net,romfile="),
    ]
