"""A volume with several sources: the first whose secret opens it wins, at a shell and at boot."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Callable

import pytest

from cryptpilot_boot import keys, log, tasks, volume
from cryptpilot_boot.boot import console, stage
from cryptpilot_boot.boot.plan import Plan
from cryptpilot_boot.commands import check, enroll, key, rotate, show
from cryptpilot_boot.config import Boot, Config, Exec, Fallback, Volume
from cryptpilot_boot.errors import CryptpilotError, DeviceError, Interrupted, KeyFetchError, NoValue
from cryptpilot_boot.keys.asking import Terms, question
from cryptpilot_boot.keys.failures import wrong_secret
from cryptpilot_boot.keys.secret import Sources
from cryptpilot_boot.passphrase import Passphrase
from cryptpilot_boot.providers import table
from cryptpilot_boot.providers.together import Together
from cryptpilot_boot.providers.tpm2 import Tpm2
from cryptpilot_boot.report import eventlog, report, summary
from cryptpilot_boot.system import block, process, run
from cryptpilot_boot.system.wait import Deadline
from cryptpilot_boot.volume import opened
from cryptpilot_boot.volume.secret import with_secret
from tests.unit import secrets
from tests.unit.stages import run as run_stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptpilot_boot.config import Encrypt
    from cryptpilot_boot.keys.race import Asked
    from cryptpilot_boot.keys.secret import Secret
    from cryptpilot_boot.log import Event
    from cryptpilot_boot.providers.provider import Source

GOOD = b"opens it"
ASKED: list[str] = []


def refuse() -> bytes:
    raise KeyFetchError("refused", "have it let in")


def no_value() -> bytes:
    raise NoValue("there is no current value")


def silent() -> bytes:
    time.sleep(600)
    return GOOD


# What a source answers, by its command; with ", before" what it answers for the previous value.
ANSWERS: dict[str, Callable[[], bytes]] = {
    "good": lambda: GOOD,
    "wrong": lambda: b"opens nothing",
    "refuses": refuse,
    "silent": silent,
    "rotated": lambda: b"opens nothing",
    "rotated, before": lambda: GOOD,
    "emptied": no_value,
    "emptied, before": lambda: GOOD,
}


@pytest.fixture(autouse=True)
def sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`[encrypt.exec]` answers by its command as ANSWERS has it; one device is there, and nothing is open."""

    def prepare(source: Exec) -> keys.Ask:
        def ask(_: float) -> Passphrase:
            ASKED.append(source.command)
            return Passphrase(ANSWERS[source.command](), strong=True)

        return ask

    def previous(source: Exec) -> Exec | None:
        before = f"{source.command}, before"
        return Exec(before) if before in ANSWERS else None

    rows = [
        dataclasses.replace(one, prepare=prepare, previous=previous, require_usable=lambda _: None)
        if one.make is Exec
        else one
        for one in table.PROVIDERS
    ]
    monkeypatch.setattr(table, "PROVIDERS", tuple(rows))
    monkeypatch.setattr(process, "lock_memory", lambda: None)
    monkeypatch.setattr(volume, "is_open", lambda _: False)
    monkeypatch.setattr(block, "is_block_device", lambda _: True)
    monkeypatch.setattr(opened, "SOURCES", tmp_path / "opened-by")
    ASKED.clear()


def with_sources(*commands: str, after: int = 600) -> Volume:
    first, *others = (Exec(command) for command in commands)
    fallbacks = tuple(Fallback(other, after) for other in others)
    return Volume("data0", "/dev/there", first, Path("data0.toml"), auto_open=True, fallbacks=fallbacks)


def config(one: Volume) -> Config:
    return Config(Path("/etc/cryptpilot"), Boot(), (one,))


def attempt(one: Volume) -> Callable[[Passphrase], None]:
    def unlock(passphrase: Passphrase) -> None:
        if bytes(passphrase.reveal()) != GOOD:
            raise wrong_secret(one, "no key slot takes it")

    return unlock


def opened_by(one: Volume) -> tuple[int | None, volume.Opening]:
    with key.terms_of(config(one)) as terms:
        _, result = with_secret(Sources(one, terms), attempt(one))
        return result.source, result.how


@pytest.mark.parametrize(
    ("commands", "by", "how", "asked"),
    [
        (["good", "good", "good"], 0, volume.Opening.CURRENT, ["good"]),
        (["refuses", "good"], 1, volume.Opening.CURRENT, ["refuses", "good"]),
        (["wrong", "refuses", "good"], 2, volume.Opening.CURRENT, ["wrong", "refuses", "good"]),
        # the previous value of a source is tried before the next source
        (["rotated", "good"], 0, volume.Opening.PREVIOUS, ["rotated", "rotated, before"]),
        (["emptied", "good"], 0, volume.Opening.PREVIOUS, ["emptied", "emptied, before"]),
        (["wrong", "rotated"], 1, volume.Opening.PREVIOUS, ["wrong", "rotated", "rotated, before"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else str(value),
)
def test_the_first_source_whose_secret_opens_it_wins(
    commands: list[str], by: int, how: volume.Opening, asked: list[str]
) -> None:
    assert opened_by(with_sources(*commands)) == (by, how)
    assert asked == ASKED


def test_a_silent_source_has_the_next_asked() -> None:
    assert opened_by(with_sources("silent", "good", after=0)) == (1, volume.Opening.CURRENT)


def test_what_became_of_each_is_said_when_none_opens_it() -> None:
    with pytest.raises(CryptpilotError) as caught:
        opened_by(with_sources("refuses", "wrong"))
    assert caught.value.what == (
        "none of its 2 sources opens it: encrypt (command refuses): refused; fallback1 (command wrong): the secret does"
        " not open /dev/there: no key slot takes it"
    )
    assert caught.value.hint == (
        "encrypt: have it let in; fallback1: check that its secret has not changed; if it was never enrolled:"
        " cryptpilot enroll data0 fallback1"
    )


def test_the_log_says_why_the_previous_value_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else does, if that opens the volume."""
    outcome, events = boot(monkeypatch, with_sources("emptied"))
    assert outcome.rotation_pending
    (facts,) = (event.facts for event in events if (event.step, event.phase) == (log.FETCH_KEY, "end"))
    assert (facts["value"], facts["current"]) == ("previous", "there is no current value")


def test_trouble_with_the_disk_is_no_sources_failure() -> None:
    one = with_sources("good", "good")

    def fail(_: Passphrase) -> None:
        raise DeviceError("the disk is gone")

    with key.terms_of(config(one)) as terms, pytest.raises(DeviceError, match="the disk is gone"):
        with_secret(Sources(one, terms), fail)
    assert ASKED == ["good"]


def boot(monkeypatch: pytest.MonkeyPatch, one: Volume, *, timeout: int = 20) -> tuple[stage.Outcome, list[Event]]:
    """Run a stage with this volume alone; return its outcome, and what the log has."""

    def open_volume(one: Volume, secret: Secret, **_: object) -> volume.Opened:
        return with_secret(secret, attempt(one))[1]

    monkeypatch.setattr(volume, "open_volume", open_volume)
    events: list[Event] = []
    plan = Plan("initrd", (one,), frozenset(), timeout, verbose=False, late_after=timeout, next_stage=True)
    with log.subscribed(events.append):
        (outcome,) = run_stage(plan, lambda _: None, tuple)
    return outcome, events


def test_a_boot_says_which_source_opened_it_and_why_the_first_did_not(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome, events = boot(monkeypatch, with_sources("refuses", "good"))
    (line,) = console.result(outcome)
    assert line.startswith("data0: /dev/mapper/data0 opened in ")
    assert line.endswith(" s by fallback1 (command good)")
    (notice,) = (event.facts["notice"] for event in events if "notice" in event.facts)
    assert notice == "data0: encrypt: refused; asking fallback1 (command good) too"
    (facts,) = (event.facts for event in events if event.step == "outcome")
    assert (facts["provider"], facts["source"]) == ("command good", "fallback1")


def test_a_disk_that_is_not_there_leaves_no_source_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    before = threading.active_count()
    monkeypatch.setattr(block, "is_block_device", lambda _: False)
    boot(monkeypatch, with_sources("good", "good"), timeout=0)
    deadline = Deadline(20)
    while threading.active_count() > before:
        assert not deadline.over
        time.sleep(0.01)


def test_a_key_that_comes_when_the_volume_was_given_up_is_wiped(monkeypatch: pytest.MonkeyPatch) -> None:
    one = with_sources("rotated", "good")
    made: list[Passphrase] = []

    class Made(Terms):
        def prepared(self, volume: Volume, source: Encrypt) -> Asked:  # noqa: ARG002 - all are alike
            def ask() -> Passphrase:
                made.append(Passphrase(GOOD, strong=True))
                return made[-1]

            return ask

    @contextlib.contextmanager
    def asking() -> Iterator[None]:
        yield
        raise Interrupted

    monkeypatch.setattr(tasks, "asking", asking)
    with Sources(one, Made(keys.Answers(), 0)) as secret, pytest.raises(Interrupted):
        secret.next()
    with pytest.raises(Interrupted):
        question(one, one.encrypt, Made(keys.Answers(), 0))()
    assert [bytes(key.reveal()) for key in made] == [bytes(len(GOOD))] * 2


def test_a_key_that_comes_after_an_interruption_is_wiped() -> None:
    """The supervisor may not know of the interruption yet."""
    made: list[Passphrase] = []

    def ask() -> Passphrase:
        made.append(Passphrase(GOOD, strong=True))
        run.interrupt()
        return made[-1]

    with secrets.secret(ask) as secret, pytest.raises(Interrupted):
        secret.next()
    run.clear_interruption()
    with pytest.raises(Interrupted):
        question(secrets.DATA1, Exec("cat"), secrets.Given(keys.Answers(), 0, ask, ask))()
    assert [bytes(key.reveal()) for key in made] == [bytes(len(GOOD))] * 2


def test_a_boot_says_that_the_first_was_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome, events = boot(monkeypatch, with_sources("silent", "good", after=0))
    assert outcome.opened_by == "fallback1 (command good)"
    (notice,) = (event.facts["notice"] for event in events if "notice" in event.facts)
    assert notice == "data0: no answer of the source before it yet; asking fallback1 (command good) too"


def test_a_boot_of_which_no_source_opens_the_volume_says_of_each_why(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome, _ = boot(monkeypatch, with_sources("refuses", "wrong"))
    assert outcome.error
    text = "\n".join(console.result(outcome))
    assert "encrypt (command refuses): refused" in text
    assert "fallback1 (command wrong): the secret does not open" in text


def test_the_report_of_a_boot_says_which_source_opened_it(monkeypatch: pytest.MonkeyPatch) -> None:
    _, events = boot(monkeypatch, with_sources("refuses", "good"))
    lines = (json.dumps({"stage": "initrd", "pid": 1, **dataclasses.asdict(event)}) for event in events)
    records, damaged = eventlog.parse("\n".join(lines).encode())
    assert not damaged
    whole = report.report(records)
    (result,) = whole.volumes
    assert (result.source, result.provider) == ("fallback1", "command good")
    assert any("opened by:" in line and "fallback1 (command good)" in line for line in summary.summary(whole))


def test_show_says_what_opened_it(monkeypatch: pytest.MonkeyPatch) -> None:
    one = with_sources("good", "wrong")
    status = volume.Status(one, volume.State.OPENED)
    monkeypatch.setattr(show, "examine", lambda _: status)
    assert json.loads(show.show(config(one), [], as_json=True)[0])[0]["opened_by"] is None
    opened.note_source("data0", "fallback1")
    monkeypatch.setattr(keys, "ends", lambda _: None)
    assert json.loads(show.show(config(one), [], as_json=True)[0])[0]["opened_by"] == "fallback1"
    assert "  exec, exec (opened by fallback1)  " in show.show(config(one), [], as_json=False)[2]
    opened.note_source("data0", "")
    assert "  exec, exec  " in show.show(config(one), [], as_json=False)[2]


def said_by_check(monkeypatch: pytest.MonkeyPatch, one: Volume, *, timeout: int = 90) -> tuple[bool, list[str]]:
    status = volume.Status(one, volume.State.OPENED)
    monkeypatch.setattr(volume, "examine", lambda _: status)
    monkeypatch.setattr(volume, "verify", lambda one, secret: with_secret(secret, attempt(one))[1])
    said: list[str] = []
    chosen = dataclasses.replace(config(one), boot=Boot(timeout=timeout))
    good = check.check(chosen, keep_checking=True, skip_passphrase=False, say=said.append)
    return good, said


def test_config_check_tries_each_source(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said_by_check(monkeypatch, with_sources("good", "good", after=15)) == (True, ["data0: ok"])
    good, said = said_by_check(monkeypatch, with_sources("refuses", "good", "wrong", after=15))
    assert not good
    assert said[0].startswith("data0: error: encrypt (command refuses): refused; fallback2 (command wrong): the secret")
    assert said[1] == "data0:   have it let in; if it was never enrolled: cryptpilot enroll data0 fallback2"
    good, said = said_by_check(monkeypatch, with_sources("good", "rotated", after=15))
    assert good
    assert said == [
        (
            "data0: warning: fallback1 (command rotated): it opens with the previous value of its secret only; rotate"
            " it: cryptpilot rotate data0"
        )
    ]


def test_config_check_says_that_a_source_has_its_turn_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    good, said = said_by_check(monkeypatch, with_sources("good", "good", "good", after=45))
    assert good
    assert said == [
        (
            "data0: warning: fallback2 (command good) is asked after 90 s of silence, and [boot] timeout (90 s) is"
            " over by then"
        )
    ]


@pytest.mark.parametrize(
    ("source", "number"), [("encrypt", 0), ("kms", None), ("fallback1", 1), ("fallback2", 2), ("otp", None)]
)
def test_a_source_is_named_on_the_command_line(source: str, number: int | None) -> None:
    one = with_sources("a", "b", "c")
    if number is not None:
        assert enroll.numbered(one, source) == number
        return
    with pytest.raises(CryptpilotError, match=f'has no source "{source}"'):
        enroll.numbered(one, source)


def test_a_provider_names_a_source_that_is_alone_with_it() -> None:
    assert enroll.numbered(with_sources("a"), "exec") == 0
    with pytest.raises(CryptpilotError, match="several sources of the kind") as caught:
        enroll.numbered(with_sources("a", "b"), "exec")
    assert "encrypt and fallback1" in caught.value.what


def test_a_provider_names_the_source_that_is_made_of_it_and_of_others() -> None:
    """The errors of the TPM say `enroll VOLUME tpm2`, whether its key is one of several values or not."""
    both = Together((Exec("cat"), Tpm2("/dev/vdb", together=True)))
    one = dataclasses.replace(with_sources("a"), encrypt=both)
    assert [enroll.numbered(one, name) for name in ("tpm2", "together", "encrypt")] == [0, 0, 0]
    two = dataclasses.replace(one, fallbacks=(Fallback(Tpm2("/dev/vdb"), 15),))
    assert enroll.numbered(two, "tpm2") == 1


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        (Tpm2("/dev/vdb"), "for a new key that is sealed: cryptpilot enroll data0 encrypt"),
        (Exec("cat"), "by hand: cryptsetup luksAddKey /dev/there; have the new key come from command cat;"),
    ],
    ids=["sealed", "asked for"],
)
def test_what_can_be_done_where_there_is_nothing_to_rotate_depends_on_the_source(source: Source, hint: str) -> None:
    one = dataclasses.replace(with_sources("a"), encrypt=source)
    told: list[str | CryptpilotError] = []
    assert not rotate.rotate(config(one), ["data0"], lambda _, result: told.append(result))
    (error,) = told
    assert isinstance(error, CryptpilotError)
    assert error.hint.startswith(hint)


def test_each_secret_is_rotated_and_a_failure_of_one_keeps_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    rotated: list[bytes] = []

    def rotate_volume(_: Volume, current: Callable[[], Passphrase], previous: Callable[[], Passphrase]) -> bool:
        with current(), previous() as before:
            rotated.append(bytes(before.reveal()))
        return True

    monkeypatch.setattr(rotate, "rotate_volume", rotate_volume)
    ANSWERS["refuses, before"] = refuse
    try:
        one = with_sources("refuses", "rotated", "good")
        told: list[str | CryptpilotError] = []
        assert not rotate.rotate(config(one), ["data0"], lambda _, result: told.append(result))
    finally:
        del ANSWERS["refuses, before"]
    assert rotated == [GOOD]
    assert "encrypt (command refuses): refused" in str(told[0])
