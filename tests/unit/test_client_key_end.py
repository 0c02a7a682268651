"""A client key ends: `config check`, `show` and the boot say so in time, and by no clock that nobody vouches for."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import json
from pathlib import Path
from typing import TYPE_CHECKING, Callable

import pytest

from cryptpilot_boot import keys, log, volume
from cryptpilot_boot.boot import console
from cryptpilot_boot.boot.plan import Plan
from cryptpilot_boot.commands import check, show
from cryptpilot_boot.config import Boot, Config, Exec, Kms, KmsRole, Otp, Volume
from cryptpilot_boot.errors import CryptpilotError, KeyFetchError
from cryptpilot_boot.providers import expiry
from cryptpilot_boot.providers.expiry import Level
from cryptpilot_boot.report import results
from cryptpilot_boot.report.summary import summary
from cryptpilot_boot.system import block, clock, process
from cryptpilot_boot.volume.secret import with_secret
from tests.kms.pki import ClientKey, make_client_key, make_pki
from tests.kms.server import KmsServer
from tests.unit.stages import run as run_stage
from tests.unit.test_boot_report import line, made_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptpilot_boot.keys.secret import Secret
    from tests.kms.pki import Pki

UTC = datetime.timezone.utc
NOW = datetime.datetime.now(UTC).replace(microsecond=0)
DAY = datetime.timedelta(days=1)
VALUE = base64.b64encode(bytes(range(256))).decode()


@pytest.fixture(scope="module")
def pki() -> Pki:
    return dataclasses.replace(make_pki(), client_key=make_client_key(not_after=NOW + 20 * DAY))


@pytest.fixture
def kms(pki: Pki) -> Iterator[KmsServer]:
    with KmsServer(pki, {"disk": VALUE}) as server:
        yield server


def section(key: ClientKey, pem: str = "pem", endpoint: str = "localhost:9") -> Kms:
    return Kms("kst-test", "disk", key.text, key.password, pem, endpoint)


def volume_with(encrypt: Kms, dev: str = "/dev/absent") -> Volume:
    return Volume("data1", dev, encrypt, Path("/etc/cryptpilot/volumes/data1.toml"), auto_open=True)


@pytest.mark.parametrize(
    ("left", "level"),
    [
        (181 * DAY, None),
        (180 * DAY + datetime.timedelta(seconds=1), None),
        (180 * DAY, Level.NOTE),
        (31 * DAY, Level.NOTE),
        (30 * DAY, Level.WARNING),
        (8 * DAY, Level.WARNING),
        (7 * DAY, Level.URGENT),
        (datetime.timedelta(seconds=1), Level.URGENT),
        (datetime.timedelta(0), Level.URGENT),
        (-9000 * DAY, Level.URGENT),
    ],
)
def test_it_is_said_from_180_days_on_and_more_loudly_at_30_and_at_7(
    left: datetime.timedelta, level: Level | None
) -> None:
    notice = expiry.notice(NOW + left, NOW)
    assert (notice.level if notice else None) is level


def test_each_level_begins_with_a_word_of_its_own_and_all_say_what_to_do() -> None:
    lines = [str(expiry.notice(NOW + days * DAY, NOW)) for days in (90, 20, 5, -1)]
    assert [line.partition(":")[0] for line in lines] == ["note", "warning", "URGENT", "URGENT"]
    assert "in 90 days" in lines[0]
    assert f"{NOW + 20 * DAY:%Y-%m-%d}" in lines[1]
    assert f"ended on {NOW - DAY:%Y-%m-%d}" in lines[3]
    assert f"this machine's clock says {NOW:%Y-%m-%d}" in lines[3]
    assert all("cryptpilot initrd rebuild --all" in line for line in lines)


def test_the_end_is_the_one_of_the_keys_own_certificate() -> None:
    end = NOW + 20 * DAY
    assert keys.ends(section(make_client_key(not_after=end))) == end
    assert keys.ends(section(make_client_key(not_after=end, loose=True))) == end


@pytest.mark.parametrize(
    "key",
    [
        lambda: make_client_key(certified=False),
        lambda: make_client_key(not_after=NOW + 20 * DAY, of_another=True),
        lambda: dataclasses.replace(make_client_key(not_after=NOW + 20 * DAY), password="another"),
        lambda: ClientKey("KAAP.1", json.dumps({"KeyId": "KAAP.1", "PrivateKeyData": "MIIJ"}), "password"),
    ],
    ids=["no certificate", "another key's certificate", "wrong password", "damaged"],
)
def test_where_nothing_that_can_be_trusted_says_it_nothing_is_said(key: Callable[[], ClientKey]) -> None:
    one = section(key())
    assert (keys.ends(one), keys.ending(one)) == (None, None)


@pytest.mark.parametrize("encrypt", [Otp(), KmsRole("disk"), Exec("cat")])
def test_what_has_no_client_key_has_no_end(encrypt: Otp | KmsRole | Exec) -> None:
    assert keys.ends(encrypt) is None


@pytest.mark.root
def test_check_says_it_whatever_else_is_wrong_and_it_is_no_error(pki: Pki) -> None:
    said: list[str] = []
    config = Config(Path(), Boot(), (volume_with(section(pki.client_key)),))
    assert check.check(config, keep_checking=True, skip_passphrase=True, say=said.append)
    warning, ending = said
    assert warning.startswith("data1: warning: its disk is not attached")
    assert ending.startswith("data1: warning: its client key ends on ")
    said.clear()
    assert not check.check(config, keep_checking=True, skip_passphrase=False, say=said.append)
    assert ": error: kms_cert_pem" in said[1]
    assert said[-1] == ending


def test_show_says_it_below_the_table_and_in_the_json(pki: Pki) -> None:
    config = Config(Path(), Boot(), (volume_with(section(pki.client_key)),))
    painted = show.show(config, [], as_json=False, paint=lambda text, color: f"<{color}>{text}")
    assert painted[-1].startswith("<yellow>warning: data1: its client key ends on ")
    (record,) = json.loads("\n".join(show.show(config, [], as_json=True)))
    assert record["client_key_ends"] == f"{NOW + 20 * DAY:%Y-%m-%dT%H:%M:%SZ}"
    far = Config(Path(), Boot(), (volume_with(section(make_client_key())),))
    assert not any("client key" in line for line in show.show(far, [], as_json=False))


@pytest.fixture
def boots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every device there and every volume closed; opening one asks for its key."""
    monkeypatch.setattr(volume, "is_open", lambda _: False)
    monkeypatch.setattr(block, "is_block_device", lambda _: True)
    monkeypatch.setattr(process, "lock_memory", lambda: None)

    def open_volume(_: Volume, secret: Secret, **__: object) -> volume.Opened:
        return with_secret(secret, lambda _: None)[1]

    monkeypatch.setattr(volume, "open_volume", open_volume)


def booted(one: Volume) -> tuple[list[str], dict[str, object]]:
    """Run a stage; return what the console says of the volume, and what the event log has of its outcome."""
    facts: list[dict[str, object]] = []
    plan = Plan("system", (one,), frozenset(), 5, verbose=False)
    with log.subscribed(lambda event: facts.append(event.facts) if event.step == "outcome" else None):
        (outcome,) = run_stage(plan, lambda _: None)
    return console.result(outcome), facts[-1]


@pytest.mark.usefixtures("boots")
def test_the_boot_says_it_on_the_console_and_in_the_log(pki: Pki, kms: KmsServer) -> None:
    lines, facts = booted(volume_with(section(pki.client_key, pki.authority.pem, kms.endpoint)))
    assert lines[0].startswith("data1: /dev/mapper/data1 opened in ")
    assert lines[1].startswith("data1: warning: its client key ends on ")
    assert lines[1] == f"data1: {facts['ending']}"


@pytest.mark.usefixtures("boots")
def test_the_boot_says_nothing_by_a_clock_that_no_gateway_has_agreed_to(
    pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock is the host's: only where the secret came has KMS found it right."""
    monkeypatch.setattr(clock, "now", lambda: NOW + 3650 * DAY)
    lines, facts = booted(volume_with(section(pki.client_key, pki.authority.pem, "127.0.0.1:9")))
    assert "could not be opened" in lines[0]
    assert not any("client key" in line for line in lines)
    assert "ending" not in facts
    monkeypatch.setattr(volume, "is_open", lambda _: True)  # another stage, or somebody, asked
    lines, facts = booted(volume_with(section(pki.client_key, pki.authority.pem, "127.0.0.1:9")))
    assert (len(lines), "ending" in facts) == (1, False)


@pytest.mark.usefixtures("boots")
def test_a_certificate_that_cannot_be_read_opens_no_volume_less(
    pki: Pki, kms: KmsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(_: object) -> None:
        raise TypeError

    monkeypatch.setattr(keys, "ending", stumble)
    lines, _ = booted(volume_with(section(pki.client_key, pki.authority.pem, kms.endpoint)))
    assert len(lines) == 1
    assert "opened in" in lines[0]


def test_the_report_of_the_boot_has_it() -> None:
    outcome = line(4.0, "outcome", "end", "data", seconds=1.0, result="opened", ending="URGENT: its client key ends")
    whole = made_of(line(0.5, "start"), outcome)
    assert "  key:      URGENT: its client key ends" in summary(whole)
    assert next(one for one in whole.volumes if one.result == results.OPENED).ending == "URGENT: its client key ends"


def test_a_key_that_kms_does_not_know_any_more_is_said_to_have_ended(pki: Pki, kms: KmsServer) -> None:
    over, good = make_client_key(not_after=NOW - datetime.timedelta(hours=1)), make_client_key()
    hints = []
    for key in (over, good):
        with pytest.raises(KeyFetchError, match="does not know the client key") as caught:
            keys.prepare(section(key, pki.authority.pem, kms.endpoint))(5)
        hints.append(caught.value.hint)
    assert hints[0].startswith("its client key ended on ")
    assert "this machine's clock says" in hints[0]
    assert hints[1] == "check client_key: was its KeyId deleted, has it expired?"


def test_one_that_kms_still_takes_is_no_error(kms: KmsServer, pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway's word counts: a clock that is ahead keeps no volume closed."""
    monkeypatch.setattr(clock, "now", lambda: NOW + 21 * DAY)
    one = section(pki.client_key, pki.authority.pem, kms.endpoint)
    keys.prepare(one)(5).wipe()
    assert "ended on" in str(keys.ending(one))


def test_nothing_of_the_key_is_in_what_is_told(pki: Pki) -> None:
    assert pki.client_key.password not in str(keys.ending(section(pki.client_key)))
    with pytest.raises(CryptpilotError) as caught:
        keys.prepare(section(dataclasses.replace(pki.client_key, password="pass-word"), pki.authority.pem))
    assert "pass-word" not in f"{caught.value.what} {caught.value.hint}"
