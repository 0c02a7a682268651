"""The exec provider: what a command writes is the passphrase, and each failure has its sentence and its fate."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cryptpilot_boot import keys
from cryptpilot_boot.config import Exec
from cryptpilot_boot.errors import KeyFetchError
from cryptpilot_boot.passphrase import SecretBuffer
from cryptpilot_boot.system.wait import Deadline

if TYPE_CHECKING:
    from cryptpilot_boot.passphrase import Passphrase

LONG = 30
"""Seconds no test is allowed to take."""
LIMIT = 8 << 20


def shell(code: str, timeout: int = LONG) -> Exec:
    return Exec("sh", ("-c", code), timeout)


def ask(source: Exec, timeout: float = LONG) -> Passphrase:
    return keys.prepare(source)(timeout)


def failure(source: Exec, timeout: float = LONG) -> KeyFetchError:
    with pytest.raises(KeyFetchError) as caught:
        ask(source, timeout)
    return caught.value


@pytest.mark.parametrize(
    ("code", "secret", "strong"),
    [
        (r"printf 'hunter2'", b"hunter2", False),
        (r"printf 'hunter2\n'", b"hunter2\n", False),
        (r"printf '\n\000\377'", b"\n\0\xff", False),
        (r"printf '%40s' | tr ' ' '\377'", b"\xff" * 40, True),
        ("printf 'a'; sleep 0.1; printf 'b'", b"ab", False),
        ("echo not this >&2; printf 'this'", b"this", False),
        ("cat; printf 'nothing to read'", b"nothing to read", False),
    ],
)
def test_the_output_is_the_passphrase_byte_for_byte(code: str, secret: bytes, *, strong: bool) -> None:
    with ask(shell(code)) as passphrase:
        assert (bytes(passphrase.reveal()), passphrase.strong) == (secret, strong)


def test_arguments_arrive_as_they_are() -> None:
    with ask(Exec("printf", ("%s|", "a b", "", "$HOME", "*", "ü"))) as passphrase:
        assert bytes(passphrase.reveal()).decode() == "a b||$HOME|*|ü|"


def test_a_command_may_be_a_path(tmp_path: Path) -> None:
    script = tmp_path / "get key"
    script.write_text("#!/bin/sh\nprintf 'secret'\n")
    script.chmod(0o700)
    with ask(Exec(str(script))) as passphrase:
        assert bytes(passphrase.reveal()) == b"secret"


def test_a_command_sees_nothing_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTPILOT_TEST", "1")
    with Path("/dev/null").open() as file:
        os.set_inheritable(file.fileno(), True)
        with ask(shell("env; readlink /proc/$$/fd/0; ls /proc/$$/fd")) as passphrase:
            lines = bytes(passphrase.reveal()).decode().splitlines()
    assert {line for line in lines if not line.startswith(("PWD=", "_=", "OLDPWD=", "SHLVL="))} == {
        *("LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "/dev/null", "0", "1", "2")
    }


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (Exec("no-such-command"), "no-such-command: program not found in /usr/sbin:/usr/bin:/sbin:/bin"),
        (Exec("/no/such/command"), "/no/such/command: program not found"),
        (Exec("/usr"), "/usr is a directory, and no program"),
        (shell("exit 3"), "sh failed with exit status 3"),
        (shell("echo first >&2; echo second >&2; exit 3"), "sh failed with exit status 3: first; second"),
        (shell(r"printf 'a\033[31m\tb\n' >&2; exit 3"), "sh failed with exit status 3: a [31m b"),
        (shell("kill -KILL $$"), "sh was killed by SIGKILL"),
        (shell("echo why >&2; kill -SEGV $$"), "sh was killed by SIGSEGV: why"),
        (shell("kill -40 $$"), "sh was killed by signal 40"),
        (shell(":"), "sh wrote nothing to its standard output"),
        (shell("echo no key >&2"), "sh wrote nothing to its standard output: no key"),
        (shell("sleep 60", timeout=1), "sh was not done within 1 s, and was killed"),
        (shell("yes"), "sh wrote more than 8 MiB, the most that cryptsetup takes for a key"),
    ],
    ids=lambda value: value.args[-1] if isinstance(value, Exec) and value.args else "",
)
def test_a_failure_has_its_sentence_and_is_final(source: Exec, said: str) -> None:
    error = failure(source)
    assert (error.what, error.retryable, error.unreachable) == (said, False, False)
    assert error.hint


def test_only_a_temporary_failure_is_worth_another_try() -> None:
    """75 is EX_TEMPFAIL of sysexits.h."""
    retryable = [status for status in (1, 2, 69, 74, 75, 76, 124, 255) if failure(shell(f"exit {status}")).retryable]
    assert retryable == [75]


def test_what_is_written_is_never_part_of_an_error() -> None:
    for code in ("printf hunter2; exit 1", "printf hunter2; kill -KILL $$", "printf hunter2; yes >&2"):
        error = failure(shell(code, timeout=1))
        assert "hunter2" not in error.what + error.hint


def test_an_error_is_short_however_much_is_said() -> None:
    assert len(failure(shell("head -c 10000000 /dev/zero | tr '\\0' x >&2; exit 1")).what) < 350


@pytest.mark.parametrize("extra", [0, 1])
def test_the_limit_is_that_of_cryptsetup(extra: int) -> None:
    source = shell(f"head -c {LIMIT + extra} /dev/zero")
    if extra:
        assert "more than 8 MiB" in failure(source).what
    else:
        with ask(source) as passphrase:
            assert len(passphrase) == LIMIT


HANGS = {
    "in the foreground": "trap '' TERM; sh -c 'trap \"\" TERM; echo $$ > {0}; sleep 60; sleep 60'; sleep 60",
    "beside what it started": "sh -c 'echo $$ > {0}; sleep 60; sleep 60' & sleep 60",
}


@pytest.mark.parametrize("where", HANGS)
def test_a_command_that_hangs_is_killed_with_all_it_started(tmp_path: Path, where: str) -> None:
    started = time.monotonic()
    assert "killed" in failure(shell(HANGS[where].format(tmp_path / "pid"), timeout=1)).what
    assert time.monotonic() - started < LONG / 2
    status = Path("/proc", (tmp_path / "pid").read_text().strip(), "stat")
    end = time.monotonic() + LONG / 2
    while status.exists() and " Z " not in status.read_text():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_time_that_is_left_bounds_that_of_the_command() -> None:
    assert failure(shell("sleep 60", timeout=60), timeout=1).what == "sh was not done within 1 s, and was killed"


def test_a_command_has_its_own_time_and_not_that_of_a_kms_request(monkeypatch: pytest.MonkeyPatch) -> None:
    from cryptpilot_boot.providers import limit

    monkeypatch.setattr(limit, "LONGEST_TRY", 0.2)
    with keys.ask_until(keys.prepare(shell("sleep 1.2; printf late")), Deadline(LONG), "v") as passphrase:
        assert bytes(passphrase.reveal()) == b"late"


def test_a_command_is_asked_again_until_the_deadline(tmp_path: Path) -> None:
    with pytest.raises(KeyFetchError, match=r"sh failed with exit status 75 \(\d tries in 1 s\)"):
        keys.ask_until(keys.prepare(shell("exit 75")), Deadline(1), "v")
    code = f"test -e {tmp_path}/tried || {{ touch {tmp_path}/tried; exit 75; }}; printf secret"
    with keys.ask_until(keys.prepare(shell(code)), Deadline(LONG), "v") as passphrase:
        assert bytes(passphrase.reveal()) == b"secret"


def test_nothing_of_a_secret_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    views: list[memoryview] = []
    fill = SecretBuffer.fill

    def watch(buffer: SecretBuffer, source: int, most: int) -> int:
        count = fill(buffer, source, most)
        views.append(buffer.reveal())
        return count

    monkeypatch.setattr(SecretBuffer, "fill", watch)
    with ask(shell("printf hunter2")):
        pass
    failure(shell("printf hunter2; exit 1"))
    assert any(map(len, views))
    assert not any(map(any, views))


def test_its_arguments_are_not_shown() -> None:
    source = Exec("/opt/get-key", ("--token", "hunter2"))
    assert keys.describe(source) == {"provider": "command /opt/get-key"}
    assert "hunter2" not in repr(source)
    mistaken = Exec("/opt/get-key --token hunter2")
    assert keys.describe(mistaken) == {"provider": "command /opt/get-key ..."}
