"""A TPM of a machine, in software, and what a machine says that its own has measured."""

from __future__ import annotations

import shutil
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab.run import end, spawn

if TYPE_CHECKING:
    import subprocess


class Tpm:
    """A TPM 2.0 that is new, at work until `stop`. Host program: ``swtpm``."""

    def __init__(self) -> None:
        """Start it."""
        self._state = Path(tempfile.mkdtemp(prefix="cryptpilot-tpm-"))
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
        """End it, and forget what it knows."""
        end(self._process)
        self.control.close()
        shutil.rmtree(self._state)


def options(control: int) -> list[str]:
    """Return what has QEMU put a TPM into a machine. control: the descriptor of its control channel."""
    return [
        *("-chardev", f"socket,id=tpm-control,fd={control}"),
        *("-tpmdev", "emulator,id=tpm,chardev=tpm-control", "-device", "tpm-tis,tpmdev=tpm"),
    ]
