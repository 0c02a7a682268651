"""The standard output of a program, byte for byte: for keys that no other provider can get."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from cryptpilot_boot import names
from cryptpilot_boot.errors import KeyFetchError, ProgramError
from cryptpilot_boot.passphrase import Passphrase, SecretBuffer, is_key_material
from cryptpilot_boot.providers import program
from cryptpilot_boot.providers.fields import STRING, STRINGS, TIMEOUT, Key
from cryptpilot_boot.providers.provider import Needs, Provider, Source
from cryptpilot_boot.system import programs
from cryptpilot_boot.system.run import read_secret

if TYPE_CHECKING:
    from cryptpilot_boot.providers.provider import Ask
    from cryptpilot_boot.system.run import Ended

# The longest key file that cryptsetup reads; "Maximum keyfile size" in `cryptsetup --help`.
_LONGEST = 8 << 20  # bytes
_TELLING = 8  # bytes; as many of a passphrase in another text are no coincidence


@dataclasses.dataclass(frozen=True)
class Exec(Source):
    """The standard output of a program, byte for byte.

    command: an absolute path, or a name in the directories of system programs. timeout: seconds it may take.
    """

    provider = "exec"

    command: str
    args: tuple[str, ...] = dataclasses.field(default=(), repr=False)
    timeout: int = 30


def _prepare(source: Exec) -> Ask:
    """Return what runs the command and returns its standard output."""

    def ask(timeout: float) -> Passphrase:
        seconds = min(timeout, source.timeout)
        with SecretBuffer(_LONGEST) as buffer:
            try:
                _require_runnable(source)
                ended = read_secret([source.command, *source.args], buffer, timeout=seconds)
            except ProgramError as error:
                raise KeyFetchError(error.what, error.hint) from None
            _require_success(source, ended, buffer, seconds)
            return Passphrase(buffer.reveal(), strong=is_key_material(buffer.reveal()))

    return ask


def _require_runnable(source: Exec) -> None:
    """Raise ProgramError if the command is missing or cannot be run."""
    if fault := programs.fault(source.command):
        raise fault


def _require_success(source: Exec, ended: Ended, buffer: SecretBuffer, seconds: float) -> None:
    """Raise KeyFetchError unless the command succeeded and wrote a passphrase."""
    said = f": {_quotable(ended.said, buffer)}" if ended.said else ""
    if buffer.full:
        raise KeyFetchError(
            f"{source.command} wrote more than {_LONGEST >> 20} MiB, the most that cryptsetup takes for a key",
            "have it write the passphrase to its standard output, and nothing else",
        )
    if why := program.failure(source.command, ended, seconds):
        again = ended.in_time and ended.status == program.TRY_AGAIN
        raise KeyFetchError(f"{why}{said}", program.hint(ended, source.timeout), retryable=again)
    if not len(buffer.reveal()):
        raise KeyFetchError(
            f"{source.command} wrote nothing to its standard output{said}",
            "have it write the passphrase there before it ends, and fail when it has none",
        )


def _quotable(said: str, buffer: SecretBuffer) -> str:
    """Return the standard error of a command, unless it contains a part of the standard output."""
    text = said.encode()
    output = bytearray(buffer.reveal())
    try:
        size = min(_TELLING, len(output.strip()))
        pieces = (text[place : place + size] for place in range(len(text) - size + 1))
        secret = size > 0 and any(piece in output for piece in pieces)
    finally:
        output[:] = bytes(len(output))
    return "(what it wrote to standard error is not shown: some of its output is in it)" if secret else said


def _describe(source: Exec) -> dict[str, str]:
    # without its arguments, which may be secret, even if they are in "command" by mistake
    first, blank, _ = source.command.partition(" ")
    name = f"{first} ..." if blank and not programs.is_there(source.command) else source.command
    return {"provider": f"command {name}"}


PROVIDER = Provider(
    make=Exec,
    keys={
        "command": Key(STRING, names.program, required=True),
        "args": Key(STRINGS, names.arguments),
        "timeout": TIMEOUT,
    },
    prepare=_prepare,
    describe=_describe,
    needs=lambda source: Needs(programs=(source.command,)),
    secret=lambda source: ("exec", source.command, source.args),
    require_usable=_require_runnable,
)
