"""`cryptpilot image measure`: what a verifier has to expect of a machine that boots an image."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Callable

from cryptpilot_boot import log
from cryptpilot_boot.commands.show import table
from cryptpilot_boot.errors import printable
from cryptpilot_boot.measure import look, registers, stub, unified
from cryptpilot_boot.system import disk_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cryptpilot_boot.measure.unified import Expected, MeasuredDisk

_PARTS = (
    ("stub", stub.MAGIC),
    ("kernel", stub.LINUX),
    ("initrd", stub.INITRD),
    ("command line", stub.CMDLINE),
    ("os-release", stub.OSREL),
)


def measure(source: Path, *, secure_boot: bool, as_json: bool, say: Callable[[str], None]) -> bool:
    """Print what has to be expected of an image; True when all of it can be said.

    secure_boot: whether the firmware that boots it has it on.
    """
    disk_image.require_file(source)
    with log.timed("read-image"):
        found = look.found(source)
    expected = unified.expected(found, secure_boot=secure_boot)
    for line in [_as_json(found, expected, secure_boot)] if as_json else _as_table(found, expected):
        say(line)
    return not expected.refused


def _as_table(found: MeasuredDisk, expected: Expected) -> Iterator[str]:
    bank, *_ = registers.BANKS
    rows = [["Digest", bank, "Of"]]
    rows.append(["boot loader", found.authenticode[bank], f"{unified.LOADER}, by Authenticode"])
    for name, section in _PARTS:
        if section in found.sections:
            rows.append([name, hashlib.sha256(found.sections[section]).hexdigest(), _described(section, found)])
    if found.kernel:
        rows.append(["kernel", found.kernel[bank], "the same, by Authenticode"])
    yield from table(rows)
    yield ""
    values = expected.pcrs(bank)
    known = [[f"PCR {number}", values[number]] for number in unified.COMPUTED if number in values]
    rtmrs, obstacle = expected.rtmrs()
    known += [[f"RTMR[{number}]", f"{value} (sha384; not tested)"] for number, value in rtmrs.items()]
    if known:
        yield from table([["Register", bank], *known])
    for why in dict.fromkeys(expected.refused.values()):
        numbers = ", ".join(str(number) for number, one in expected.refused.items() if one == why)
        yield f"PCR {numbers}: not computed: {printable(why)}"
    if obstacle:
        yield f"RTMR: not computed: {printable(obstacle)}"


def _described(section: str, found: MeasuredDisk) -> str:
    content = found.sections[section]
    if section == stub.CMDLINE:
        return printable(content.rstrip(b"\0").decode("utf-8", "replace"))
    if section == stub.LINUX:
        return printable(stub.kernel_release(content)) or "no known kernel"
    if section == stub.MAGIC:
        return f"systemd-stub {stub.version(content) or 'of no known version'}"
    return f"{len(content)} bytes"


def _as_json(found: MeasuredDisk, expected: Expected, secure_boot: bool) -> str:
    rtmrs, obstacle = expected.rtmrs()
    parts = {name.replace(" ", "_"): found.sections[at] for name, at in _PARTS if at in found.sections}
    digests = {
        name: {bank: hashlib.new(bank, content).hexdigest() for bank in registers.BANKS}
        for name, content in parts.items()
    }
    return json.dumps(
        {
            "boot_loader": {"path": unified.LOADER, "authenticode": dict(found.authenticode)},
            "kernel_authenticode": dict(found.kernel),
            "kernel_release": stub.kernel_release(found.sections.get(stub.LINUX, b"")),
            "kernel_command_line": found.sections.get(stub.CMDLINE, b"").rstrip(b"\0").decode("utf-8", "replace"),
            "stub_version": stub.version(found.sections.get(stub.MAGIC, b"")),
            "secure_boot": secure_boot,
            "digests": digests,
            "pcrs": {bank: expected.pcrs(bank) for bank in registers.BANKS},
            "refused": expected.refused,
            "rtmrs": rtmrs,
            "rtmrs_tested": False,
            "rtmrs_refused": obstacle,
            "events": [{"pcr": one.pcr, "what": one.what, **one.digests} for one in expected.events],
        },
        indent=2,
    )
