"""QEMU: a whole machine, from power-on through the initrd into the booted system, under software emulation.

It is some ten times slower than a real one: it shows what happened in what order and what waited for what, and
how long only in comparison.
"""

from __future__ import annotations

import codecs
import contextlib
import enum
import json
import os
import re
import selectors
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

from tests.lab import tpm
from tests.lab.qemu_options import FREE_SLOT, command_line
from tests.lab.qemu_options import Machine as Machine
from tests.lab.run import LabError, end, spawn

if TYPE_CHECKING:
    from tests.lab.disk import Disk

CONSOLE = "console=ttyS0 panic=-1 mitigations=off"
"""To be on every kernel command line: talk on the serial port. What a boot that fails does is the image's affair.

What a kernel does against speculating processors takes a tenth of an emulated one, which does not speculate.
"""

CONTROL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])|[\x00-\x08\x0b-\x1f\x7f]")
"""Terminal control sequences and characters, all but tab and line feed."""

PANIC = "Kernel panic - not syncing"


class Ending(enum.Enum):
    """Why a wait for a machine came back."""

    POWERED_OFF = "the guest powered off"
    PANICKED = "the guest's kernel panicked"
    REBOOTED = "the guest tried to reboot"
    SEEN = "what was waited for was seen"
    TIMED_OUT = "the time was up"
    DIED = "QEMU ended by itself"


@dataclass(frozen=True)
class Line:
    """A line of the console without control sequences, and when it was complete: seconds since power-on."""

    seconds: float
    text: str


@dataclass(frozen=True)
class BootResult:
    """What a machine did. `log` is the file with everything as it came out of the serial port."""

    ending: Ending
    lines: tuple[Line, ...]
    seconds: float
    log: Path

    @property
    def console(self) -> str:
        """Return the console's text."""
        return "".join(f"{line.text}\n" for line in self.lines)

    def at(self, pattern: str) -> float | None:
        """Return when a line first matched a regular expression, or None if none did."""
        return next((line.seconds for line in self.lines if re.search(pattern, line.text)), None)

    def check(self, ending: Ending = Ending.POWERED_OFF) -> BootResult:
        """Return the result itself; show the whole console if the machine ended in another way."""
        if self.ending is not ending:
            raise AssertionError(f"{self}\nAfter {self.seconds:.1f} s {self.ending.value}; expected: {ending.value}.")
        return self

    def __str__(self) -> str:
        return "".join(f"{line.seconds:7.2f} {line.text}\n" for line in self.lines)


def boot(
    machine: Machine,
    *,
    timeout: float,
    log: Path,
    until: str | None = None,
    on_line: Callable[[Line], None] | None = None,
) -> BootResult:
    """Run a machine until it ends, or the console shows the regular expression `until`, or `timeout` seconds passed.

    Host program: ``qemu-system-x86_64``.
    """
    with Guest(machine, log) as guest:
        ending = guest.wait(timeout, until=until, on_line=on_line)
    return guest.result(ending)


class Guest:
    """A machine at work, for a test that acts while it runs; its power is cut at the end of a ``with`` statement.

    Its console is read only during `wait`: a guest with much to say stops at the first 64 kB that nobody reads.
    """

    def __init__(self, machine: Machine, log: Path) -> None:
        """Turn a machine on; its console is written to `log` as it comes."""
        self.lines: list[Line] = []
        self._pending = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._shutdown_reason = ""
        self._log = log.open("wb")
        self._qmp, theirs = socket.socketpair()
        self._qmp.settimeout(30)
        self._qmp_file = self._qmp.makefile("rb")
        self._tpm = tpm.Tpm(machine.tpm if isinstance(machine.tpm, Path) else None) if machine.tpm else None
        control = self._tpm.control.fileno() if self._tpm else None
        with theirs:
            command = command_line(machine, theirs.fileno(), control)
            self._process = spawn(
                machine.netns.command(command) if machine.netns else command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno(), *([control] if control is not None else [])],
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._keyboard = self._process.stdin
        self._console = self._process.stdout
        self._plug_in_after = machine.link_up_after
        self.started = time.monotonic()
        try:
            self._talk()  # the greeting
            self.qmp("qmp_capabilities")
            if machine.link_up_after:
                self.set_link(up=False)
            self.started = time.monotonic()
            self.qmp("cont")
        except LabError:
            self.kill()
            raise

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def wait(
        self,
        timeout: float,
        *,
        until: str | None = None,
        on_line: Callable[[Line], None] | None = None,
    ) -> Ending:
        """Let the machine run until it ends, the console shows `until` from here on, or `timeout` seconds from now."""
        pattern = re.compile(until) if until else None
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self._console, selectors.EVENT_READ)
            while time.monotonic() < deadline:
                self._plug_in_if_due()
                if not selector.select(self._pause(deadline)):
                    continue
                data = os.read(self._console.fileno(), 1 << 16)
                if not data:
                    return self._ending()
                for line in self._take(data):
                    if on_line:
                        on_line(line)
                    if pattern and pattern.search(line.text):
                        return Ending.SEEN
                if pattern and pattern.search(self._pending):  # a prompt ends no line
                    return Ending.SEEN
        return Ending.TIMED_OUT

    def set_link(self, *, up: bool) -> None:
        """Plug the network cable in or out."""
        self.qmp("set_link", name="net", up=up)

    def type(self, line: str) -> None:
        """Type a line on the console."""
        self._keyboard.write(f"{line}\r".encode())
        self._keyboard.flush()

    def plug_in(self, disk: Disk) -> None:
        """Attach a disk to the machine at work."""
        image = {"driver": "file", "filename": str(disk.path)}
        self.qmp("blockdev-add", **{"node-name": "plugged", "driver": "raw", "file": image})
        self.qmp("device_add", driver="virtio-blk-pci", bus=FREE_SLOT, drive="plugged", serial=disk.name)

    def qmp(self, command: str, **arguments: object) -> Any:
        """Give QEMU's monitor a command of its machine protocol and return its answer."""
        self._qmp.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        while True:
            message = self._talk()
            if "error" in message:
                raise LabError(f"QEMU refused {command}: {message['error']['desc']}")
            if "return" in message:
                return message["return"]

    def kill(self) -> None:
        """Cut the power."""
        end(self._process)
        if self._tpm:
            self._tpm.stop()
            self._tpm = None
        self._log.close()
        self._console.close()
        self._keyboard.close()
        self._qmp_file.close()
        self._qmp.close()

    def result(self, ending: Ending) -> BootResult:
        """Return what the machine did so far."""
        partial = [Line(self._now(), self._pending)] if self._pending else []
        return BootResult(ending, (*self.lines, *partial), self._now(), Path(self._log.name))

    def _now(self) -> float:
        return time.monotonic() - self.started

    def _pause(self, deadline: float) -> float:
        due = self.started + self._plug_in_after if self._plug_in_after else deadline
        return max(0, min(due, deadline) - time.monotonic())

    def _plug_in_if_due(self) -> None:
        if self._plug_in_after and self._now() >= self._plug_in_after:
            self._plug_in_after = 0
            self.set_link(up=True)

    def _take(self, data: bytes) -> list[Line]:
        self._log.write(data)
        self._log.flush()
        *whole, self._pending = (self._pending + self._decoder.decode(data)).split("\n")
        lines = [Line(self._now(), CONTROL.sub("", text)) for text in whole]
        self.lines += lines
        return lines

    def _talk(self) -> dict[str, Any]:
        """Read one message of the monitor, keeping what an event says about the machine's end."""
        try:
            line = self._qmp_file.readline()
        except OSError as error:
            raise LabError(f"QEMU's monitor does not answer: {error}") from error
        if not line:
            output = self._console.read().decode(errors="replace")
            raise LabError(f"QEMU ended before it could be talked to.\n{output}")
        message: dict[str, Any] = json.loads(line)
        if message.get("event") == "SHUTDOWN":
            self._shutdown_reason = message["data"]["reason"]
        return message

    def _ending(self) -> Ending:
        with contextlib.suppress(LabError):
            while not self._shutdown_reason:
                self._talk()
        if any(PANIC in line.text for line in self.lines):
            return Ending.PANICKED
        return {"guest-shutdown": Ending.POWERED_OFF, "guest-reset": Ending.REBOOTED}.get(
            self._shutdown_reason, Ending.DIED
        )
