"""The stand-in gateway as a program: how a guest in its own network meets it."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kms import client
from tests.kms.behaviours import Behaviour, parse
from tests.kms.directory import open_directory
from tests.unit import standin

NAME = "kst-test.cryptoservice.kms.aliyuncs.com"


@contextmanager
def program(directory: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run it, yield it with its endpoint, and end it."""
    ready = directory.with_name(directory.name + ".ready")
    always = ["--listen", "127.0.0.1:0", "--name", NAME, "--ip", "127.0.0.1"]
    with standin.running(directory, *always, *arguments, ready=ready, stderr=subprocess.PIPE) as process:
        yield process, ready.read_text().strip()


def fetch(endpoint: str, directory: Path, secret: str, stage: str = "") -> str:
    """Ask as a user would: with what the directory holds."""
    pki = open_directory(directory)
    return client.ask(endpoint, (directory / "ca.pem").read_text(), pki.client_key, secret, stage)


def behave(directory: Path, text: str) -> None:
    new = directory / "behaviour.new"
    new.write_text(text)
    new.replace(directory / "behaviour")


def records(directory: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (directory / "requests.jsonl").read_text().splitlines()]


def test_it_serves_what_it_is_told_and_writes_down_who_asked(tmp_path: Path) -> None:
    directory = tmp_path / "kms"
    from_file = tmp_path / "value"
    from_file.write_text("ZnJvbSBhIGZpbGU=")
    arguments = ["--secret", "disk=Y3VycmVudA==", "--previous", "disk=cHJldmlvdXM=", "--secret", f"swap=@{from_file}"]
    with program(directory, *arguments) as (process, endpoint):
        assert fetch(endpoint, directory, "disk") == "Y3VycmVudA=="
        assert fetch(endpoint, directory, "disk", "ACSPrevious") == "cHJldmlvdXM="
        assert fetch(endpoint, directory, "swap") == "ZnJvbSBhIGZpbGU="
        with pytest.raises(RuntimeError, match=r"^Forbidden\.ResourceNotFound$"):
            fetch(endpoint, directory, "absent")
        before = time.monotonic()
        process.terminate()
        assert process.wait(5) == 0
        assert time.monotonic() - before < 3
    assert [(entry["secret"], entry["stage"], entry["status"], entry["outcome"]) for entry in records(directory)] == [
        ("disk", "ACSCurrent", 200, "ok"),
        ("disk", "ACSPrevious", 200, "ok"),
        ("swap", "ACSCurrent", 200, "ok"),
        ("absent", "ACSCurrent", 404, "Forbidden.ResourceNotFound"),
    ]
    log = (directory / "requests.jsonl").read_text()
    assert not any(value in log for value in ("Y3VycmVudA", "cHJldmlvdXM", "ZnJvbSBhIGZpbGU"))


def test_a_secret_in_files_is_rotated_while_it_runs(tmp_path: Path) -> None:
    directory = tmp_path / "kms"
    value, before = tmp_path / "value", tmp_path / "previous"
    value.write_text("b2xk")
    arguments = ["--secret", f"disk=@{value}", "--previous", f"disk=@{before}"]
    with program(directory, *arguments) as (_, endpoint):
        assert fetch(endpoint, directory, "disk") == "b2xk"
        with pytest.raises(RuntimeError, match=r"^Forbidden\.ResourceNotFound$"):
            fetch(endpoint, directory, "disk", "ACSPrevious")
        before.write_text("b2xk")
        value.write_text("bmV3")
        assert fetch(endpoint, directory, "disk") == "bmV3"
        assert fetch(endpoint, directory, "disk", "ACSPrevious") == "b2xk"


def test_it_obeys_the_behaviour_file_at_each_request(tmp_path: Path) -> None:
    directory = tmp_path / "kms"
    with program(directory, "--secret", "disk=dg==") as (process, endpoint):
        assert fetch(endpoint, directory, "disk") == "dg=="
        behave(directory, '{"name": "throttle", "times": 1}')
        for _ in range(2):
            with pytest.raises(RuntimeError, match=r"^Rejected\.Throttling$"):
                fetch(endpoint, directory, "disk")
            assert fetch(endpoint, directory, "disk") == "dg=="
            behave(directory, '{"name": "throttle", "times": 1}')  # the same words, but written anew
        behave(directory, '{"name": "thottle"}')
        with pytest.raises(RuntimeError, match=r"^InternalFailure$"):
            fetch(endpoint, directory, "disk")
        behave(directory, '{"name": "unavailable"}')
        with pytest.raises(RuntimeError, match=r"^ServiceUnavailableTemporary$"):
            fetch(endpoint, directory, "disk")
        (directory / "behaviour").unlink()
        assert fetch(endpoint, directory, "disk") == "dg=="
        process.terminate()
        assert process.stderr is not None
        assert "no behaviour 'thottle'" in process.stderr.read()


def test_sigterm_ends_it_while_a_request_hangs(tmp_path: Path) -> None:
    directory = tmp_path / "kms"
    with program(directory, "--secret", "disk=dg==") as (process, endpoint):
        behave(directory, '{"name": "hang"}')
        body = client.write_request("disk")
        connection = client.connect(endpoint, (directory / "ca.pem").read_text(), timeout=0.2)
        with pytest.raises(socket.timeout):
            client.exchange(connection, client.sign(open_directory(directory).client_key, body), body)
        before = time.monotonic()
        process.terminate()
        assert process.wait(5) == 0
        assert time.monotonic() - before < 3
    assert [entry["outcome"] for entry in records(directory)] == ["hang"]


def test_a_second_run_has_the_same_keys_and_they_are_private(tmp_path: Path) -> None:
    first = open_directory(tmp_path)
    second = open_directory(tmp_path)
    assert first.authority.pem == second.authority.pem == (tmp_path / "ca.pem").read_text()
    assert first.client_key == second.client_key
    assert json.loads((tmp_path / "client_key.json").read_text())["KeyId"].startswith("KAAP.")
    private = {path.name for path in tmp_path.iterdir() if path.stat().st_mode & 0o777 == 0o600}
    assert private == {"ca_key.pem", "client_key.json", "client_key_password"}


def test_a_behaviour_file_with_an_unknown_word_is_refused() -> None:
    assert parse('{"name": "slow", "seconds": 2.5}') == Behaviour(name="slow", seconds=2.5)
    with pytest.raises(ValueError, match="a behaviour is a JSON object with"):
        parse('{"name": "slow", "second": 2.5}')
    with pytest.raises(ValueError, match="a behaviour is a JSON object with"):
        parse('"slow"')
