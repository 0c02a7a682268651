"""A program that cannot be run: what is in the way is named, and what to do about it; by day where it can be seen."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cryptpilot_boot import keys
from cryptpilot_boot.cli import main as cli
from cryptpilot_boot.config import Exec
from cryptpilot_boot.errors import KeyFetchError
from cryptpilot_boot.system import programs
from tests.unit.test_config import SMALL, configure

if TYPE_CHECKING:
    from collections.abc import Callable

CHECKOUT = Path(__file__).resolve().parents[2]
TIME = 30.0


def script(path: Path, content: bytes, mode: int = 0o755) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def elf(loader: bytes, *, wide: bool = True) -> bytes:
    """Return the beginning of an ELF file that names a loader."""
    if wide:
        head = b"\x7fELF\2\1\1".ljust(32, b"\0") + struct.pack("<Q", 64) + bytes(14) + struct.pack("<HH", 56, 1)
        table = struct.pack("<IIQQQQQQ", 3, 4, 120, 0, 0, len(loader) + 1, len(loader) + 1, 1)
        return head.ljust(64, b"\0") + table + loader + b"\0"
    head = b"\x7fELF\1\1\1".ljust(28, b"\0") + struct.pack("<I", 52) + bytes(10) + struct.pack("<HH", 32, 1)
    return head.ljust(52, b"\0") + struct.pack("<IIIIIIII", 3, 84, 0, 0, len(loader) + 1, 0, 4, 1) + loader + b"\0"


# What the program is, what is said of it, and what to do. {0} is its path.
FAULTS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "lines that end in CR LF": (
        lambda path: script(path, b"#!/bin/sh\r\nprintf x\r\n"),
        '{0} has lines that end in CR LF, so that its interpreter is "/bin/sh\\r", which is missing',
        "convert its line ends: sed -i 's/\\r$//' {0}",
    ),
    "so with env": (
        lambda path: script(path, b"#!/usr/bin/env python3\r\n"),
        "{0} has lines that end in CR LF, so that nothing can run it",
        "sed -i",
    ),
    "so with an option": (
        lambda path: script(path, b"#!/bin/sh -e\r\nprintf x\r\n"),
        "{0} has lines that end in CR LF, so that nothing can run it",
        "sed -i",
    ),
    "an interpreter that is missing": (
        lambda path: script(path, b"#!/usr/bin/no-such-shell -x\n"),
        "{0} is run by /usr/bin/no-such-shell, as its first line says, which is missing",
        "install /usr/bin/no-such-shell",
    ),
    "one that env does not find": (
        lambda path: script(path, b"#!/usr/bin/env no-such-shell\n"),
        "{0} is run by no-such-shell, as its first line says, which is not found in /usr/sbin:",
        "install no-such-shell",
    ),
    "a loader that is missing": (
        lambda path: script(path, elf(b"/lib/ld-musl-none.so.1")),
        "{0} needs the loader /lib/ld-musl-none.so.1, which is missing",
        "take a program made for this system",
    ),
    "a loader that is missing, 32 bits": (
        lambda path: script(path, elf(b"/lib/ld-none.so.2", wide=False)),
        "{0} needs the loader /lib/ld-none.so.2, which is missing",
        "take a program made for this system",
    ),
    "a byte-order mark": (
        lambda path: script(path, b"\xef\xbb\xbf#!/bin/sh\n"),
        "{0} begins with a byte-order mark, so that the kernel does not see its #! line",
        "remove it: sed -i",
    ),
    "UTF-16": (
        lambda path: script(path, "\ufeff#!/bin/sh\n".encode("utf-16-le")),
        "{0} is UTF-16 text, which no interpreter reads",
        "save it as UTF-8",
    ),
    "no first line": (
        lambda path: script(path, b"printf x\n"),
        "{0} is neither an ELF file nor a script that begins with #!",
        "begin it with the line #!/bin/sh",
    ),
    "nothing": (lambda path: script(path, b""), "{0} is empty", "begin it with the line #!/bin/sh"),
    "no x bit": (lambda path: script(path, b"#!/bin/sh\n", 0o644), "{0} is not executable", "chmod 755 {0}"),
    "a directory": (Path.mkdir, "{0} is a directory, and no program", "name the program"),
    "a link to nowhere": (lambda path: path.symlink_to("nowhere"), "{0} cannot be run: No such file", "ls -l {0}"),
    "nothing at all": (lambda _: None, "{0}: program not found", "install {0}"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_what_is_in_the_way_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    """When it is to be run, and before: in a check, and before an image is made."""
    make, what, hint = FAULTS[kind]
    path = tmp_path / "get-key"
    make(path)
    what, hint = what.format(path), hint.format(path)
    fault = programs.fault(str(path), tmp_path / "no-formats")
    assert fault
    assert fault.what.startswith(what)
    assert hint in fault.hint
    if not programs.fault(str(path)):
        pytest.skip("this kernel knows other formats, of which it may be one")
    with pytest.raises(KeyFetchError) as caught:
        keys.prepare(Exec(str(path)))(TIME)
    assert caught.value.what.startswith(what)
    assert hint in caught.value.hint
    assert not caught.value.retryable

    configure(tmp_path / "etc", SMALL.replace("[encrypt.otp]", f'auto_open = true\n[encrypt.exec]\ncommand = "{path}"'))
    arguments = ["-c", str(tmp_path / "etc")]
    assert cli.main([*arguments, "config", "check", "--skip-check-passphrase"]) == cli.EXIT_FAILED
    said = capsys.readouterr()
    assert f"v: error: {what}" in said.out
    assert cli.main([*arguments, "initrd", "plan"]) == cli.EXIT_FAILED
    said = capsys.readouterr()
    assert said.out == ""
    assert f"error: v: {what}" in said.err
    assert hint in said.err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_a_file_system_that_lets_no_program_run_is_named(tmp_path: Path) -> None:
    """In mounts of its own, which end with the program."""
    code = f"""
import sys
from pathlib import Path
from cryptpilot_boot.system.programs import fault
path = Path({str(tmp_path / "get-key")!r})
path.write_bytes(b"#!/bin/sh\\n")
path.chmod(0o755)
print(fault(str(path)).what)
"""
    mount = f'mount -t tmpfs -o noexec none {tmp_path} && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", mount, "sh", sys.executable, "-c", code]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=CHECKOUT).stdout
    assert said == f"{tmp_path}/get-key is on a file system that is mounted noexec\n"


def test_what_the_kernel_refuses_for_another_reason_is_told_in_its_words(tmp_path: Path) -> None:
    path = script(tmp_path / "get-key", elf(b"/bin/sh")[:100])
    with pytest.raises(KeyFetchError, match="get-key cannot be run: Exec format error"):
        keys.prepare(Exec(str(path)))(TIME)


@pytest.mark.parametrize(
    "content", [b"#!/bin/sh\n", b"#! /bin/sh -e\n", b"#!/usr/bin/env sh\n", b"#!/usr/bin/env -S sh\n"]
)
def test_nothing_speaks_against_a_program_that_runs(tmp_path: Path, content: bytes) -> None:
    assert programs.fault(str(script(tmp_path / "get key", content))) is None
    assert programs.fault("sh") is None
    assert programs.fault("/bin/sh") is None


@pytest.mark.parametrize("words", ["/bin/cat /etc/keys/data0", "/bin/sh -c 'cat key'", "/bin/cat  x"])
def test_arguments_go_into_args(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str) -> None:
    source = Exec(words)
    with pytest.raises(KeyFetchError) as caught:
        keys.prepare(source)(TIME)
    program = words.split()[0]
    assert f"{program} is one: arguments do not belong into command" in caught.value.what
    assert caught.value.hint.startswith(f'arguments go into args: command = "{program}"')
    assert "key" not in caught.value.what + caught.value.hint, "they may hold a secret"
    configure(tmp_path, SMALL.replace("[encrypt.otp]", f'[encrypt.exec]\ncommand = "{words}"'))
    assert cli.main(["-c", str(tmp_path), "config", "check"]) == cli.EXIT_FAILED
    assert "arguments go into args" in capsys.readouterr().out


def test_a_name_with_arguments_is_refused_when_it_is_read(tmp_path: Path) -> None:
    (problem,) = configure(tmp_path, SMALL.replace("[encrypt.otp]", '[encrypt.exec]\ncommand = "cat key"')).problems
    assert problem.what.endswith("; arguments go into args")


def test_a_file_may_have_blanks_in_its_name(tmp_path: Path) -> None:
    path = script(tmp_path / "cat key", b"#!/bin/sh\nprintf secret\n")
    (tmp_path / "cat").symlink_to("/bin/cat")
    with keys.prepare(Exec(str(path)))(TIME) as passphrase:
        assert bytes(passphrase.reveal()) == b"secret"


def test_what_runs_on_in_the_background_does_not_hold_the_passphrase_up(tmp_path: Path) -> None:
    code = b"#!/bin/sh\nsleep 20 &\necho $! > %s\nprintf 'a passphrase'\n" % bytes(tmp_path / "pid")
    with keys.prepare(Exec(str(script(tmp_path / "get-key", code)), timeout=10))(TIME) as passphrase:
        assert bytes(passphrase.reveal()) == b"a passphrase"
    assert Path("/proc", (tmp_path / "pid").read_text().strip()).exists(), "it is left alone: it may be an agent"


def test_what_is_written_after_the_end_is_no_part_of_it(tmp_path: Path) -> None:
    code = b"#!/bin/sh\n(sleep 1; printf late) &\nprintf early\n"
    with keys.prepare(Exec(str(script(tmp_path / "get-key", code))))(TIME) as passphrase:
        assert bytes(passphrase.reveal()) == b"early"
    code = b"#!/bin/sh\n(sleep 1; printf late) &\n"
    with pytest.raises(KeyFetchError, match="wrote nothing to its standard output") as caught:
        keys.prepare(Exec(str(script(tmp_path / "get-key", code))))(TIME)
    assert "before it ends" in caught.value.hint


def test_what_a_program_is_made_for_is_read_of_its_header(tmp_path: Path) -> None:
    assert programs.machine(Path(sys.executable).resolve()) == os.uname().machine
    for bits, order, number, name in (
        (2, 1, b"\xb7\0", "aarch64"),
        (2, 1, b"\x3e\0", "x86_64"),
        (1, 1, b"\x3e\0", "ELF machine 62 (32 bits)"),  # x32
        (1, 1, b"\3\0", "i686"),
        (2, 2, b"\0\x16", "s390x"),
        (2, 1, b"\x34\x12", "ELF machine 4660 (64 bits)"),
    ):
        (tmp_path / "program").write_bytes(b"\x7fELF" + bytes([bits, order]) + bytes(12) + number + bytes(40))
        assert programs.machine(tmp_path / "program") == name
    for content in (b"", b"\x7fELF\2\1", b"#!/bin/sh\nexec true # and more\n"):
        (tmp_path / "program").write_bytes(content)
        assert programs.machine(tmp_path / "program") == ""
