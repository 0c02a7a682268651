"""The registers that a disk which boots by a unified kernel image gives. Pure.

Firmware: edk2 (OVMF) that starts `LOADER` of this disk at its first attempt. Source: TCG PC Client Platform Firmware
Profile, 3.3.4; edk2, SecurityPkg/Tcg/Tcg2Dxe and OvmfPkg/Tcg/TdTcg2Dxe; Linux, drivers/firmware/efi/libstub.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.measure import registers, stub
from cryptpilot_boot.measure.registers import Measurement, of_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

LOADER = "/EFI/BOOT/BOOTX64.EFI"
"""What firmware starts of a disk that it has no entry for; UEFI specification, 3.5.1.1."""
LOADED, TABLE, KERNEL_OPTIONS, UNIFIED, OVERRIDES = 4, 5, 9, 11, 12
"""PCRs: what firmware starts; the partition table; what the kernel measures; the unified image; what overrides it."""
COMPUTED = (LOADED, TABLE, KERNEL_OPTIONS, UNIFIED, OVERRIDES)
RTMRS = (1, 2)
"""Those of TDX's registers that have no other events than those computed here."""

_NEEDED = (stub.LINUX, stub.INITRD, stub.CMDLINE, stub.MAGIC)
_KNOWN = stub.CODE | {*_NEEDED, stub.OSREL, stub.UNAME, stub.SBAT}
_READ_DIRECTORY = "/efi/"  # what is elsewhere on the partition may be read by the stub: /loader


@dataclasses.dataclass(frozen=True)
class MeasuredDisk:
    """What is on a disk. authenticode: digests of the program that firmware starts, by bank.

    names: of its sections, in its order, () for anything else. sections: those that are needed here, with what is in
    them. kernel: Authenticode digests of the kernel in it. files: paths of all files of the EFI system partition.
    table: what firmware measures of the partition table.
    """

    authenticode: Mapping[str, str]
    names: tuple[str, ...]
    sections: Mapping[str, bytes]
    kernel: Mapping[str, str]
    files: tuple[str, ...]
    table: bytes


@dataclasses.dataclass(frozen=True)
class Expected:
    """What has to be expected. events: in their order. refused: why a PCR was not computed, by number."""

    events: tuple[Measurement, ...] = ()
    refused: Mapping[int, str] = dataclasses.field(default_factory=dict)

    def pcrs(self, bank: str) -> dict[int, str]:
        """Return the values by number, but for those that are refused."""
        values = {LOADED: "", **dict.fromkeys(COMPUTED, registers.zero(bank)), **registers.replay(self.events, bank)}
        return {number: value for number, value in sorted(values.items()) if number not in self.refused}

    def rtmrs(self) -> tuple[dict[int, str], str]:
        """Return the values of TDX's registers by number, and the reason if they cannot be computed, else ""."""
        if self.refused:
            return {}, "not every event is known"
        try:
            values = registers.rtmrs(self.events)
        except CryptpilotError as error:
            return {}, error.what
        return {number: values[number] for number in RTMRS if number in values}, ""


def sections_to_read(names: Sequence[str]) -> list[str]:
    """Return the sections whose content is needed here, of those that a program has."""
    return [name for name in names if name in _KNOWN - stub.CODE]


def expected(found: MeasuredDisk, *, secure_boot: bool = False) -> Expected:
    """Compute what registers become. secure_boot: whether the firmware has Secure Boot on."""
    fault = _fault(found)
    version = stub.version(found.sections.get(stub.MAGIC, b""))
    if not fault and version not in stub.STUBS:
        known = ", ".join(map(str, stub.STUBS))
        name = f"systemd-stub {version}" if version else "a program that does not name itself systemd-stub"
        fault = f"{LOADER} is {name}; supported: systemd-stub {known}"
    if fault or version is None:
        return Expected(refused=dict.fromkeys(COMPUTED, fault))
    release = stub.STUBS[version]
    refused = _refused(found, release)
    options = () if KERNEL_OPTIONS in refused else tuple(_kernel_events(found, release))
    # with Secure Boot the stub has firmware take the kernel unchecked, and firmware does not measure it then
    kernel = () if secure_boot else (Measurement(LOADED, f"kernel in {LOADER}", found.kernel),)
    before = (*_firmware_events(found), *_stub_events(found, release), *kernel)
    return Expected((*before, *options, *_end_events()), refused)


def _fault(found: MeasuredDisk) -> str:
    """Say why nothing can be computed, "" when it can."""
    if stub.LINUX not in found.names:
        return f"{LOADER} is not a unified kernel image: what a boot loader measures depends on what it finds at boot"
    missing = [name for name in _NEEDED if name not in found.names]
    unknown = [name for name in found.names if name not in _KNOWN]
    twice = sorted({name for name in found.names if found.names.count(name) > 1})
    for names, what in ((missing, "lacks"), (unknown, "has unknown sections,"), (twice, "has more than one of")):
        if names:
            return f"{LOADER} {what} {', '.join(names)}"
    return ""


def _refused(found: MeasuredDisk, release: stub.Stub) -> dict[int, str]:
    kernel = stub.kernel_release(found.sections[stub.LINUX])
    refused = {}
    beside = [path for path in found.files if _may_be_read(path)]
    if beside:
        # what it reads there it measures into PCR 12 or 13, and gives to the kernel
        refused = dict.fromkeys((KERNEL_OPTIONS, OVERRIDES), f"the stub may read files beside it: {beside[0]}")
    elif stub.series(kernel) not in stub.KERNELS:
        known = ", ".join(stub.KERNELS)
        refused = {
            KERNEL_OPTIONS: f"what kernel {kernel or 'of an unknown kind'} measures is not known; supported: {known}"
        }
    elif stub.load_options(found.sections[stub.CMDLINE], release) is None:
        refused = {KERNEL_OPTIONS: "the command line is empty, or not ASCII"}
    return refused


def _may_be_read(path: str) -> bool:
    name = path.lower()
    return not name.startswith(_READ_DIRECTORY) or name.startswith(f"{LOADER.lower()}.")


def _firmware_events(found: MeasuredDisk) -> Iterable[Measurement]:
    yield of_bytes(LOADED, "Calling EFI Application from Boot Option", b"Calling EFI Application from Boot Option")
    yield of_bytes(LOADED, "separator", bytes(4))
    # TDX's registers have one for all that is in RTMR[1]
    yield of_bytes(TABLE, "separator", bytes(4), confidential=False)
    yield of_bytes(TABLE, "partition table", found.table)
    yield Measurement(LOADED, LOADER, found.authenticode)


def _stub_events(found: MeasuredDisk, release: stub.Stub) -> Iterable[Measurement]:
    for name in release.measured:
        if name in found.sections:
            label = f"{name}\0".encode()
            yield of_bytes(UNIFIED, f"name of {name}", label, confidential=release.confidential)
            yield of_bytes(UNIFIED, name, found.sections[name], confidential=release.confidential)


def _kernel_events(found: MeasuredDisk, release: stub.Stub) -> Iterable[Measurement]:
    confidential = stub.KERNELS[stub.series(stub.kernel_release(found.sections[stub.LINUX]))]
    options = stub.load_options(found.sections[stub.CMDLINE], release)
    yield of_bytes(KERNEL_OPTIONS, "command line", options or b"", confidential=confidential)
    yield of_bytes(KERNEL_OPTIONS, "initrd", stub.initrd(found.sections, release), confidential=confidential)


def _end_events() -> Iterable[Measurement]:
    for text in ("Exit Boot Services Invocation", "Exit Boot Services Returned with Success"):
        yield of_bytes(TABLE, text, text.encode())
