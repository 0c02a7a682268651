"""The KBS provider against stand-ins of the guest components: the key arrives, and each failure has its sentence.

The stand-ins have the command line, the wire and the errors that are published of the real ones: tests/kbs.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cryptpilot_boot import keys, paths
from cryptpilot_boot.errors import CryptpilotError, KeyFetchError
from cryptpilot_boot.providers import kbs_daemon, kbs_text, kbs_value
from cryptpilot_boot.providers.kbs import Kbs, KbsDaemon
from cryptpilot_boot.system import programs
from cryptpilot_boot.system.wait import Deadline
from tests.kbs import confidential_data_hub
from tests.kbs.confidential_data_hub import FAULTS
from tests.kbs.daemon import FAULTS as DAEMON_FAULTS
from tests.kbs.daemon import Daemon

URL = "https://kbs.example:8080"
URI = "kbs:///default/disk/key"
KEY = bytes(range(256))
HIDDEN = "Zm9yYmlkZGVu"
"""Stands in what the stand-ins write of a failure, where the real ones have what came over the network."""


class Program:
    """The one-shot program in a directory of its own, which is all the path there is."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        text = Path(confidential_data_hub.__file__).read_text()
        self.path = directory / "confidential-data-hub"
        self.path.write_text(f"#!{sys.executable}\n{text}")
        self.path.chmod(0o755)
        (directory / "resources.json").write_text(json.dumps({URI: base64.b64encode(KEY).decode()}))

    def behave(self, name: str) -> None:
        (self.directory / "behaviour").write_text(name)

    def seen(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.directory / "seen.json").read_text())
        return found


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    monkeypatch.setattr(programs, "PATH", str(tmp_path))
    monkeypatch.setattr(paths, "RUN", tmp_path / "run")
    monkeypatch.setattr(paths, "KBS", tmp_path / "run/kbs")
    return Program(tmp_path)


@pytest.fixture
def socket_path(tmp_path: Path) -> Path:
    (tmp_path / "s").mkdir()
    return tmp_path / "s/cdh.sock"


def of(path: Path, uri: str = URI) -> KbsDaemon:
    return KbsDaemon(uri, f"unix://{path}")


def failure(one: Kbs | KbsDaemon, timeout: float = 20) -> KeyFetchError:
    """Ask once, and return what is said when it fails; nothing of what came from outside is in it."""
    with pytest.raises(KeyFetchError) as caught:
        keys.prepare(one)(timeout)
    told = caught.value.what + caught.value.hint
    assert HIDDEN not in told
    assert told.isprintable()
    assert caught.value.hint
    return caught.value


# One-shot


def test_the_program_is_run_as_it_is_documented_and_what_it_writes_is_decoded(program: Program) -> None:
    with keys.prepare(Kbs(URL, URI))(20) as passphrase:
        assert (bytes(passphrase.reveal()), passphrase.strong) == (KEY, True)
    seen = program.seen()
    assert seen["uri"] == URI
    assert seen["config"]["kbc"] == {"name": "cc_kbc", "url": URL}
    assert "LC_ALL" in seen["env"]
    assert not {"HOME", "USER", "PYTHONPATH"} & set(seen["env"])


def test_its_configuration_is_private_and_gone_afterwards(program: Program, tmp_path: Path) -> None:
    pem = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    keys.prepare(Kbs(URL, URI, pem))(20).wipe()
    seen = program.seen()
    assert seen["config"]["kbc"]["kbs_cert"] == pem
    assert (seen["mode"], seen["path"].startswith(f"{tmp_path}/run/")) == (0o600, True)
    program.behave("refused")
    failure(Kbs(URL, URI, pem))
    assert list((tmp_path / "run/kbs").iterdir()) == []
    assert (tmp_path / "run/kbs").stat().st_mode & 0o777 == 0o700


def test_a_link_in_the_place_of_its_configuration_is_not_followed(program: Program, tmp_path: Path) -> None:
    place = tmp_path / "run/kbs"
    place.mkdir(parents=True)
    (place / f"{os.getpid()}-{threading.get_ident()}.toml").symlink_to(tmp_path / "elsewhere")
    assert "cannot be given its configuration" in failure(Kbs(URL, URI)).what
    assert not (tmp_path / "elsewhere").exists()
    assert not (program.directory / "seen.json").exists()


@pytest.mark.usefixtures("program")
def test_volumes_that_ask_at_the_same_time_have_a_configuration_each() -> None:
    asks = [keys.prepare(Kbs(f"https://kbs-{number}.example", URI)) for number in range(4)]
    got: list[bytes] = []
    threads = [threading.Thread(target=lambda ask=ask: got.append(bytes(ask(20).reveal()))) for ask in asks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [KEY] * 4


@pytest.mark.parametrize(
    ("behaviour", "what", "hint", "retryable"),
    [
        ("refused", f"the KBS at {URL} does not accept this machine's evidence", "reference values", False),
        ("denied", f"its policy does not give out {URI}", "resource policy", False),
        ("absent", f"the KBS at {URL} has no resource {URI}", "check key_uri", False),
        ("version", "speaks another version of its protocol", "releases that fit each other", False),
        ("no-evidence", "this machine gave no evidence", "/dev/tdx_guest", True),
        ("no-agent", "the attestation agent, which proves", "attestation-agent.service", True),
        ("certificate", f"the certificate of the KBS at {URL} is refused", "kbs_root_cert", False),
        ("no-name", "no name server knows it", "check kbs_url", True),
        ("no-answer", f"the KBS at {URL} does not answer", "firewalls", True),
        ("unwell", "has an internal error", "log", True),
        ("unreadable", "gives an answer that the guest components cannot read", "proxy", True),
        ("unauthorized", "refuses this machine", "log", True),
        ("unknown", "for a reason that is not known here", "by hand", True),
        ("killed", "was killed by SIGKILL", "by hand", True),
        ("daemon", "does not know", "one-shot edition", False),
        ("not-base64", "wrote something else than one line of base64", "one-shot edition", False),
        ("two-lines", "wrote something else than one line of base64", "one-shot edition", False),
        ("log-line", "wrote something else than one line of base64", "one-shot edition", False),
        ("garbage", "wrote something else than one line of base64", "one-shot edition", False),
        ("empty", f"the resource {URI} is empty", "random bytes", False),
        ("nothing", f"the resource {URI} is empty", "random bytes", False),
        ("too-long", "is longer than 1 MiB: it is no key", "random bytes", False),
        ("endless", "is longer than 1 MiB: it is no key", "random bytes", False),
    ],
)
def test_each_failure_of_the_program_says_what_to_do(
    program: Program, behaviour: str, what: str, hint: str, *, retryable: bool
) -> None:
    program.behave(behaviour)
    error = failure(Kbs(URL, URI))
    assert what in error.what
    assert hint in error.hint
    assert error.retryable is retryable
    assert error.unreachable is (behaviour in ("no-name", "no-answer"))


def test_every_fault_of_the_stand_in_has_its_row_above() -> None:
    rows = test_each_failure_of_the_program_says_what_to_do.pytestmark[0].args[1]  # type: ignore[attr-defined]
    assert set(FAULTS) <= {row[0] for row in rows}


def test_a_program_that_hangs_is_ended_and_asked_again(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    program.behave("slow")
    began = time.monotonic()
    error = failure(Kbs(URL, URI), timeout=1)
    assert (error.what, error.retryable) == ("confidential-data-hub was not done within 1 s, and was killed", True)
    assert time.monotonic() - began < 10
    monkeypatch.setattr(kbs_value, "LONGEST_TRY", 1.0)
    assert "within 1 s" in failure(Kbs(URL, URI), timeout=1000).what


def test_a_passing_trouble_is_waited_out(program: Program) -> None:
    program.behave("no-answer")
    timer = threading.Timer(0.3, lambda: program.behave("ok"))
    timer.start()
    with keys.ask_until(keys.prepare(Kbs(URL, URI)), Deadline(20), "v") as passphrase:
        assert bytes(passphrase.reveal()) == KEY


def test_without_the_program_it_is_said_which_one_it_takes(program: Program) -> None:
    program.path.unlink()
    error = failure(Kbs(URL, URI))
    assert error.what.startswith("confidential-data-hub: program not found")
    assert "one-shot edition of the guest components" in error.hint
    with pytest.raises(CryptpilotError, match="program not found"):
        keys.require_usable(Kbs(URL, URI))
    keys.require_usable(KbsDaemon(URI))


def test_a_key_that_is_another_is_what_it_is(program: Program) -> None:
    """Whether it is the right one, the volume's header says."""
    program.behave("another-key")
    with keys.prepare(Kbs(URL, URI))(20) as passphrase:
        assert bytes(passphrase.reveal()) == b"other"


# Daemon


def test_the_daemon_gives_a_resource_byte_for_byte(socket_path: Path) -> None:
    with Daemon(socket_path, {URI: KEY}) as daemon, keys.prepare(of(socket_path))(5) as passphrase:
        assert (bytes(passphrase.reveal()), passphrase.strong) == (KEY, True)
        assert daemon.asked == [URI]


@pytest.mark.parametrize(
    ("behaviour", "what", "hint", "retryable"),
    [
        ("refused", f"got no {URI} from its KBS (status 13)", "journalctl -u confidential-data-hub-daemon", True),
        ("unimplemented", "gives out no resources", "cdh_socket must be", False),
        ("slow", "did not answer within 1 s", "journalctl", True),
        *(
            (name, "does not speak ttrpc", "cdh_socket must be", False)
            for name in (
                *("garbage", "garbage-inside", "garbage-payload", "text-for-number", "twice", "cut-field"),
                *("request", "stream", "other-stream"),
            )
        ),
        *(
            (name, "closed the connection in the middle of its answer", "journalctl", True)
            for name in ("closed", "closed-in-the-header", "closed-in-the-middle")
        ),
        ("empty", f"the resource {URI} is empty", "random bytes", False),
        ("no-payload", f"the resource {URI} is empty", "random bytes", False),
        ("too-long-for-a-key", "is longer than 1 MiB", "random bytes", False),
        ("too-long-for-ttrpc", "is longer than 1 MiB", "random bytes", False),
    ],
)
def test_each_failure_of_the_daemon_says_what_to_do(
    socket_path: Path, behaviour: str, what: str, hint: str, *, retryable: bool
) -> None:
    with Daemon(socket_path, {URI: KEY}, behaviour):
        error = failure(of(socket_path), timeout=1)
    assert what in error.what
    assert hint in error.hint
    assert error.retryable is retryable
    assert error.unreachable is (behaviour == "refused")


def test_every_fault_of_the_daemon_has_its_row_above() -> None:
    rows = test_each_failure_of_the_daemon_says_what_to_do.pytestmark[0].args[1]  # type: ignore[attr-defined]
    assert set(DAEMON_FAULTS) - {"ok", "drip", "another-key", "unknown-field"} == {row[0] for row in rows}


def test_a_resource_that_is_not_there_is_the_daemons_to_explain(socket_path: Path) -> None:
    with Daemon(socket_path, {}):
        assert "status 13" in failure(of(socket_path)).what


@pytest.mark.parametrize("parent", [True, False])
def test_a_daemon_that_starts_later_is_asked_when_it_listens(tmp_path: Path, *, parent: bool) -> None:
    """Neither its socket is there at first, nor the directory that it is in."""
    directory = tmp_path / "containers"
    if parent:
        directory.mkdir()
    daemon = Daemon(directory / "cdh.sock", {URI: KEY})
    started: list[float] = []

    def start() -> None:
        directory.mkdir(exist_ok=True)
        started.append(time.monotonic())
        daemon.__enter__()

    timer = threading.Timer(0.4, start)
    timer.start()
    try:
        with keys.prepare(of(directory / "cdh.sock"))(20) as passphrase:
            assert bytes(passphrase.reveal()) == KEY
        assert time.monotonic() - started[0] < 0.9
    finally:
        timer.join()
        daemon.__exit__()


def test_without_a_daemon_that_is_said_however_little_time_there_is(socket_path: Path) -> None:
    error = failure(of(socket_path), timeout=0.2)
    assert error.what.startswith(f"there is no confidential data hub at {socket_path}")
    assert error.retryable


def test_a_socket_that_somebody_left_behind_is_none(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr(kbs_daemon, "LONGEST_WAIT", 0.3)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(socket_path))
    error = failure(of(socket_path))
    assert error.what == f"there is no confidential data hub at {socket_path}, and none came within 0 s"
    assert error.retryable
    assert "systemctl start confidential-data-hub-daemon.service" in error.hint


def test_a_daemon_that_more_ask_than_it_has_room_for_is_waited_for(socket_path: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as other:
        listener.bind(str(socket_path))
        listener.listen(0)
        other.connect(str(socket_path))
        error = failure(of(socket_path), timeout=0.3)
        assert error.what.startswith(f"the confidential data hub at {socket_path} did not answer")
        assert error.retryable


def test_a_file_in_the_place_of_the_socket_is_told_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kbs_daemon, "LONGEST_WAIT", 0.3)
    (tmp_path / "file").write_text("")
    assert "there is no confidential data hub" in failure(of(tmp_path / "file")).what
    assert not failure(of(tmp_path / "file/s")).retryable


def test_no_passphrase_stays_in_the_buffer(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cryptpilot_boot.passphrase import SecretBuffer

    made: list[SecretBuffer] = []
    original = SecretBuffer.__init__

    def note(self: SecretBuffer, limit: int) -> None:
        made.append(self)
        original(self, limit)

    monkeypatch.setattr(SecretBuffer, "__init__", note)
    with Daemon(socket_path, {URI: KEY}):
        keys.prepare(of(socket_path))(5).wipe()
    (buffer,) = made
    assert len(buffer.reveal()) > len(KEY)
    assert not any(buffer.reveal())


# Configuration


@pytest.mark.parametrize("url", ["https://kbs.example", "http://1.2.3.4:8080", "https://[fe80::1]:8080/base/kbs"])
def test_a_url_is_taken(url: str) -> None:
    assert kbs_text.url(url) == ""


@pytest.mark.parametrize(
    "url",
    [
        *("", "kbs.example:8080", "ftp://kbs.example", "https://user@kbs.example", "https://kbs.example/?q=1"),
        *('https://kbs.example"\nkbs_cert = "', "https://kbs.example\n", "https:// kbs.example", "https://"),
        *("https://kbs.example/#", "HTTPS://kbs.example", "https://kbs.exämple", "https://kbs.example\x7f"),
    ],
)
def test_what_is_no_url_is_not(url: str) -> None:
    assert kbs_text.url(url).startswith("must be the URL of a KBS")


@pytest.mark.parametrize("uri", [URI, "kbs:///a/b/c", "kbs://kbs.example:8080/default/my_key.1/volume-data0"])
def test_a_uri_is_taken(uri: str) -> None:
    assert kbs_text.uri(uri) == ""


@pytest.mark.parametrize(
    "uri",
    [
        *("", "kbs:///a/b", "kbs:///a/b/c/d", "kbs:///a/../c", "kbs:///a/b/.", "/a/b/c", "kbs:///a/b/c?x", "--help"),
        *("kbs:///a/b/c\n", "kbs:///a b/c/d", "kbs:///a//c", "https:///a/b/c", "KBS:///a/b/c", "kbs:///a/b/ü"),
    ],
)
def test_what_is_no_uri_is_not(uri: str) -> None:
    assert kbs_text.uri(uri).startswith('must be "kbs:///<repository>/<type>/<tag>"')


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("unix:///run/confidential-containers/cdh.sock", ""),
        ("/run/cdh.sock", 'must be "unix://" and an absolute path'),
        ("unix://run/cdh.sock", 'must be "unix://" and an absolute path'),
        ("unix:///run/../tmp/cdh.sock", 'must be "unix://" and an absolute path'),
        ("unix://@cdh", 'must be "unix://" and an absolute path'),
        ("tcp://127.0.0.1:1", 'must be "unix://" and an absolute path'),
        ("unix:///" + "a" * 107, "must have a path of at most 107 bytes"),
    ],
)
def test_a_socket_is_a_path(text: str, complaint: str) -> None:
    assert kbs_text.socket(text).startswith(complaint)
    assert bool(kbs_text.socket(text)) is bool(complaint)


def test_what_is_asked_is_described_without_more() -> None:
    assert keys.describe(Kbs(URL, URI, "PEM")) == {"provider": f"KBS resource {URI}", "endpoint": URL}
    assert keys.describe(KbsDaemon(URI))["endpoint"] == "/run/confidential-containers/cdh.sock"
    assert "PEM" not in repr(Kbs(URL, URI, "PEM"))
