"""In an initrd the clock is never before the making of the image, whoever asks for a key."""

from __future__ import annotations

import dataclasses
import datetime
import errno
import json
from pathlib import Path
from typing import TYPE_CHECKING, Callable

import pytest

from cryptpilot_boot import keys, log, paths
from cryptpilot_boot.boot import console
from cryptpilot_boot.config import Boot, Config, Encrypt, Exec, Kms, KmsRole, Otp
from cryptpilot_boot.errors import CryptpilotError, KeyFetchError
from cryptpilot_boot.images import record
from cryptpilot_boot.keys import floor
from cryptpilot_boot.passphrase import Passphrase
from cryptpilot_boot.providers import table
from cryptpilot_boot.system import clock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptpilot_boot.keys import Ask

MADE = datetime.datetime(2026, 11, 28, 17, 0, tzinfo=datetime.timezone.utc)
SECOND = datetime.timedelta(seconds=1)
DAY = datetime.timedelta(days=1)


@dataclasses.dataclass
class Machine:
    """What the clock says now, what it was set to, and what has been told."""

    now: datetime.datetime = MADE
    set_to: list[datetime.datetime] = dataclasses.field(default_factory=list)
    events: list[log.Event] = dataclasses.field(default_factory=list)
    said: list[str] = dataclasses.field(default_factory=list)

    def set(self, moment: datetime.datetime) -> None:
        self.set_to.append(moment)
        self.now = moment


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Machine]:
    """An initrd whose image was made at MADE, as its record says; its file is from another time."""
    made = Machine()
    file = tmp_path / "image.json"
    file.write_text(json.dumps({"made": MADE.isoformat()}))
    monkeypatch.setattr(paths, "IMAGE_RECORD", file)
    monkeypatch.setattr(clock, "now", lambda: made.now)
    monkeypatch.setattr(clock, "set_to", made.set)
    monkeypatch.setattr(floor, "in_initrd", lambda: True)
    with log.subscribed(made.events.append), log.subscribed(console.brief(made.said.append)):
        yield made


def prepared_by(monkeypatch: pytest.MonkeyPatch, encrypt: Encrypt, ask: Ask) -> None:
    """Have the provider of `encrypt` ask that way."""
    rows = (
        dataclasses.replace(one, prepare=lambda _: ask) if one.make is type(encrypt) else one for one in table.PROVIDERS
    )
    monkeypatch.setattr(table, "PROVIDERS", tuple(rows))


def provider(monkeypatch: pytest.MonkeyPatch, encrypt: Encrypt, machine: Machine) -> Iterator[datetime.datetime]:
    """Have a provider note at what time it asks."""
    asked: list[datetime.datetime] = []

    def ask(_: float) -> Passphrase:
        asked.append(machine.now)
        return Passphrase(b"x", strong=True)

    prepared_by(monkeypatch, encrypt, ask)
    keys.prepare(encrypt)(5).wipe()
    return iter(asked)


CLIENT_KEY = Kms("kst-1", "disk", "{}", "p", "PEM")
SECTIONS: dict[str, Encrypt] = {"client key": CLIENT_KEY, "role": KmsRole("disk"), "exec": Exec("get-key")}


@pytest.mark.parametrize("encrypt", SECTIONS.values(), ids=SECTIONS)
@pytest.mark.parametrize("back", [SECOND, DAY, 20 * 365 * DAY], ids=["second", "day", "years"])
def test_a_clock_that_is_set_back_is_raised_before_anybody_is_asked(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, encrypt: Encrypt, back: datetime.timedelta
) -> None:
    machine.now = MADE - back
    assert list(provider(monkeypatch, encrypt, machine)) == [MADE]
    assert machine.set_to == [MADE]
    (event,) = machine.events
    assert (event.step, event.phase, event.facts["by"]) == ("clock", "note", "this image")
    was = (MADE - back).strftime("%Y-%m-%d %H:%M UTC")
    assert machine.said == [
        f"this machine's clock said {was}, before this image was made, and was set to that time, 2026-11-28 17:00 UTC"
    ]


def test_every_provider_there_is_or_will_be_is_prepared_that_way(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the one that asks nobody."""
    assert {type(encrypt) for encrypt in SECTIONS.values()} | {Otp} <= {one.make for one in table.PROVIDERS}
    for one in table.PROVIDERS:
        machine.now = MADE - DAY
        source = object.__new__(one.make)  # only its type counts
        assert list(provider(monkeypatch, source, machine)) == [MADE - DAY if one.make is Otp else MADE]


@pytest.mark.parametrize("ahead", [0 * DAY, SECOND, 20 * 365 * DAY], ids=["equal", "second", "years"])
def test_a_clock_that_is_not_before_the_image_is_left_as_it_is(machine: Machine, ahead: datetime.timedelta) -> None:
    machine.now = MADE + ahead
    floor.hold()
    assert (machine.set_to, machine.events) == ([], [])


def test_a_clock_that_is_set_back_later_is_raised_again(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared_by(monkeypatch, Exec("get-key"), lambda _: Passphrase(b"x", strong=True))
    ask: Ask = keys.prepare(Exec("get-key"))
    for _ in range(2):
        machine.now = MADE - DAY
        ask(5).wipe()
    ask(5).wipe()
    assert machine.set_to == [MADE, MADE]


def test_a_clock_that_cannot_be_set_is_a_refusal(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: datetime.datetime) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(clock, "set_to", refuse)
    machine.now = MADE - DAY
    with pytest.raises(KeyFetchError) as caught:
        list(provider(monkeypatch, CLIENT_KEY, machine))
    assert caught.value.what == (
        "this machine's clock says 2026-11-27 17:00 UTC, before this image was made (2026-11-28 17:00 UTC),"
        " and cannot be set: Operation not permitted"
    )
    assert not caught.value.retryable


def test_in_the_booted_system_the_clock_is_the_time_services(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floor, "in_initrd", lambda: False)
    machine.now = MADE - DAY
    floor.hold()
    assert machine.set_to == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda file: file.unlink(), "unknown"),
        (lambda file: file.write_text('{"version": "0.1"}'), "unknown"),
        (lambda file: file.write_text("{"), "damaged"),
        (lambda file: file.write_text("[]"), "damaged"),
        (lambda file: file.write_text('{"made": null}'), "damaged"),
        (lambda file: file.write_text('{"made": "yesterday"}'), "damaged"),
    ],
)
def test_an_image_that_does_not_say_when_it_was_made(
    machine: Machine, change: Callable[[Path], None], says: str
) -> None:
    machine.now = MADE - DAY
    change(paths.IMAGE_RECORD)
    if says == "damaged":
        with pytest.raises(CryptpilotError, match="is damaged, and does not say when this image was made"):
            floor.hold()
    else:
        floor.hold()
    assert machine.set_to == []


def test_a_record_says_when_the_image_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = Config(tmp_path, Boot(), ())
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    monkeypatch.setattr(paths, "IMAGE_RECORD", tmp_path / "image.json")
    before = clock.now() - SECOND
    (tmp_path / "image.json").write_text(record.make(config).as_json)
    made = clock.image_made()
    assert made is not None
    assert before <= made <= clock.now()


def test_a_reproducible_image_says_what_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = Config(tmp_path, Boot(), ())
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(int(MADE.timestamp())))
    assert record.make(config).made == "2026-11-28T17:00:00+00:00"
    assert record.make(config).as_json == record.make(config).as_json
    for odd in ("now", "9" * 30, "1.5"):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", odd)
        with pytest.raises(CryptpilotError, match="SOURCE_DATE_EPOCH in the environment is not a time"):
            record.make(config)


def test_when_an_image_was_made_is_no_difference_between_images() -> None:
    one = record.Record("1.0", "", {}, {}, (), (), network=False, made="2026-11-28T17:00:00+00:00")
    other = dataclasses.replace(one, made="2027-11-28T17:00:00+00:00")
    assert record.differences(one, other, {}).all == ()
    assert record.parse(one.as_json) == one
