"""A TPM of a machine, in software, and what a machine says that its own has measured."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cryptpilot_boot.system import tpm2
from tests.lab.run import end, spawn

if TYPE_CHECKING:
    from collections.abc import Iterator


class Tpm:
    """A TPM 2.0, at work until `stop`. Host program: ``swtpm``."""

    def __init__(self, place: Path | None = None) -> None:
        """Start it. place: a directory for what it knows, which has that TPM again then; None for a new one."""
        self._passing = place is None
        self._state = place or Path(tempfile.mkdtemp(prefix="cryptpilot-tpm-"))
        self.control, theirs = socket.socketpair()
        with theirs:
            self._process: subprocess.Popen[bytes] = spawn(
                [
                    *("swtpm", "socket", "--tpm2", "--flags", "startup-clear", "--terminate"),
                    *("--tpmstate", f"dir={self._state}"),
                    *("--ctrl", f"type=unixio,clientfd={theirs.fileno()}"),
                ],
                pass_fds=[theirs.fileno()],
            )

    def stop(self) -> None:
        """End it, and forget what it knows unless that has a place."""
        end(self._process)
        self.control.close()
        if self._passing:
            shutil.rmtree(self._state)


class HostTpm:
    """A TPM 2.0 that is new, for this machine's own programs. Host programs: ``swtpm``, and of ``tpm2-tools`` any."""

    def __init__(self, place: Path) -> None:
        """Start it. place: a directory for what it knows; one that was used before has that TPM again."""
        place.mkdir(exist_ok=True)
        self._socket = place / "socket"
        self._process: subprocess.Popen[bytes] = spawn(
            [
                *("swtpm", "socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate", f"dir={place}"),
                *("--server", f"type=unixio,path={self._socket}", "--ctrl", f"type=unixio,path={self._socket}.ctrl"),
            ]
        )
        until = time.monotonic() + 10
        while not self._listens():
            assert time.monotonic() < until, "swtpm does not start"
            time.sleep(0.01)

    def _listens(self) -> bool:
        try:
            with self.connected():
                return Path(f"{self._socket}.ctrl").exists()
        except (FileNotFoundError, ConnectionRefusedError):
            return False

    @property
    def interface(self) -> str:
        """What programs that use tpm2-tss know it by."""
        return f"swtpm:path={self._socket}"

    @contextlib.contextmanager
    def connected(self, _: float = 0) -> Iterator[tpm2.Tpm]:
        """Give a conversation with it, as `tpm2.connected` does with the machine's."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._socket))
            yield tpm2.Tpm(connection.fileno())

    def tool(self, *command: str | Path, stdin: bytes = b"") -> bytes:
        """Run one of tpm2-tools; return its output."""
        line = [command[0], f"--tcti={self.interface}", *command[1:]]
        return subprocess.run(line, input=stdin, check=True, stdout=subprocess.PIPE, timeout=60).stdout

    def extend(self, pcr: int) -> None:
        """Measure something into a register."""
        self.tool("tpm2_pcrextend", f"{pcr}:sha256={'5a' * 32}")

    def stop(self) -> None:
        """End it; what it knows stays in its directory."""
        end(self._process)
        for path in (self._socket, Path(f"{self._socket}.ctrl")):
            path.unlink(missing_ok=True)


def options(control: int) -> list[str]:
    """Return what has QEMU put a TPM into a machine. control: the descriptor of its control channel."""
    return [
        *("-chardev", f"socket,id=tpm-control,fd={control}"),
        *("-tpmdev", "emulator,id=tpm,chardev=tpm-control", "-device", "tpm-tis,tpmdev=tpm"),
    ]
