"""A person who is asked for a key beside the key provider: when, what is done with the answer, and when it ends."""

from __future__ import annotations

import dataclasses
import errno
import math
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Callable

import pytest

from cryptpilot_boot import keys, log, steps, volume
from cryptpilot_boot.boot import console, prompt, stage
from cryptpilot_boot.boot.plan import Plan
from cryptpilot_boot.boot.prompt import SILENCE, WITHOUT_NETWORK, Wait, due
from cryptpilot_boot.config import Exec, Fallback, Identity, Kms, Otp, Volume
from cryptpilot_boot.errors import CryptpilotError, Interrupted, KeyFetchError
from cryptpilot_boot.keys import recovery
from cryptpilot_boot.keys.race import Answer, Entrant, Race, Turn
from cryptpilot_boot.passphrase import Passphrase
from cryptpilot_boot.system import block, luks_header, network, person, pipes, process
from cryptpilot_boot.volume import identity
from cryptpilot_boot.volume.secret import with_secret
from tests.headers import Template
from tests.unit.disks import look_up_files
from tests.unit.stages import run as run_stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptpilot_boot.config import Encrypt
    from cryptpilot_boot.keys.secret import Secret

LONG = 30.0
"""Seconds: what ends within them did not end by itself, and what does not end within them hangs."""
KMS = Kms("kst-1", "secret", "{}", "password", "pem")
RIGHT, WRONG = b"right horse", b"wrong horse"


# --- when


@pytest.mark.parametrize(
    ("wait", "moment"),
    [
        (Wait(), None),
        (Wait(online=3), None),
        (Wait(asked=10), 10 + WITHOUT_NETWORK),
        (Wait(asked=10, online=3), 10 + SILENCE),
        # a network that comes late: the key provider is given its time all the same
        (Wait(asked=10, online=20), 20 + SILENCE),
        (Wait(asked=10, failed=True), 10),
        (Wait(asked=10, online=20, failed=True), 10),
    ],
)
def test_a_person_is_asked_after_a_silence_and_at_once_when_nothing_else_is_asked(
    wait: Wait, moment: float | None
) -> None:
    assert due(wait) == moment


class Desk:
    """A volume's key provider, its device, and a person at the console, as a test has them."""

    def __init__(self) -> None:
        self.now = 0.0
        self.provider: Callable[[], Passphrase] = self.silent
        self.comes_back = threading.Event()
        self.typed: list[bytes] = []
        self.questions: list[str] = []
        self.standing = threading.Event()
        self.dismissed = threading.Event()
        self.said: list[str] = []
        self.looked_at: list[bytes] = []
        self.opened_by: list[bytes] = []

    def silent(self) -> Passphrase:
        assert self.comes_back.wait(LONG)
        return Passphrase(RIGHT, strong=True)

    def refuse(self) -> Passphrase:
        raise KeyFetchError("reading the secret is not permitted", "give the application access point a policy")

    def ask(self, question: str, _: str, dismissal: person.Dismissal) -> Passphrase | None:
        self.questions.append(question)
        self.standing.set()
        while not pipes.is_readable(dismissal.fileno()):
            if self.typed:
                return Passphrase(self.typed.pop(0), strong=False)
            time.sleep(0.01)
        self.dismissed.set()
        return None

    def open_volume(self, _: Volume, secret: Secret, **__: object) -> volume.Opened:
        return with_secret(secret, lambda key: self.attempt(key, self.opened_by))[1]

    def verify(self, _: Volume, secret: Secret) -> volume.Opened:
        return with_secret(secret, lambda key: self.attempt(key, self.looked_at))[1]

    def attempt(self, key: Passphrase, tried: list[bytes]) -> None:
        tried.append(bytes(key.reveal()))
        if tried[-1] != RIGHT:
            raise volume.WrongSecret("no key slot takes it")


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    made = Desk()
    monkeypatch.setattr(volume, "is_open", lambda _: False)
    monkeypatch.setattr(block, "is_block_device", lambda _: True)
    monkeypatch.setattr(process, "lock_memory", lambda: None)
    monkeypatch.setattr(network, "has_route", lambda: True)
    monkeypatch.setattr(volume, "open_volume", made.open_volume)
    monkeypatch.setattr(volume, "verify", made.verify)

    def prepare(_: Encrypt) -> keys.Ask:
        return lambda _: made.provider()

    def previous(_: Encrypt) -> None:
        return None

    monkeypatch.setattr(keys, "prepare", prepare)
    monkeypatch.setattr(keys, "previous", previous)
    monkeypatch.setattr(stage, "GRACE", 0.3)
    monkeypatch.setattr(prompt, "SILENCE", 0.2)
    monkeypatch.setattr(stage, "LOOK_FOR_PROMPTS", 0.02)
    monkeypatch.setattr(person, "ask", made.ask)
    with log.subscribed(console.brief(made.said.append)):
        yield made
    made.comes_back.set()


def one(name: str = "root", *, bound: bool = True, required: bool = False, encrypt: Encrypt = KMS) -> Volume:
    source = Path(f"/etc/cryptpilot/volumes/{name}.toml")
    known = Identity("", frozenset(["a"]), source) if bound else None
    return Volume(name, f"/dev/{name}", encrypt, source, auto_open=True, identity=known, required=required)


def initrd(*volumes: Volume, needed: str = "root", timeout: int = 1, ask: bool = True) -> Plan:
    return Plan("initrd", volumes, frozenset([needed]), timeout, verbose=False, late_after=0, next_stage=True, ask=ask)


def system(*volumes: Volume, timeout: int = 1) -> Plan:
    return Plan("system", volumes, frozenset(), timeout, verbose=False, ask=True)


def outcome_of(plan: Plan, pivot: Callable[[], tuple[str, ...] | None] = lambda: None) -> stage.Outcome:
    (outcome,) = run_stage(plan, lambda _: None, pivot)
    return outcome


def later(seconds: float, act: Callable[[], object]) -> None:
    threading.Timer(seconds, act).start()


def test_a_healthy_boot_asks_nobody(desk: Desk) -> None:
    desk.comes_back.set()
    outcome = outcome_of(initrd(one()))
    assert (outcome.result, outcome.typed, desk.questions) == ("opened", False, [])


def test_what_is_typed_wrong_is_said_and_asked_again_and_the_right_key_opens(desk: Desk) -> None:
    desk.typed = [WRONG, b"", RIGHT]
    outcome = outcome_of(initrd(one(), timeout=60))
    assert (outcome.result, outcome.typed) == ("opened", True)
    question = "Recovery key or passphrase of volume root"
    assert desk.questions == [question, f"wrong key: no key slot of /dev/root takes it. {question}", question]
    assert desk.looked_at == [WRONG, RIGHT]
    assert desk.opened_by == [RIGHT]
    assert [line for line in desk.said if "waiting" not in line] == [
        "root: its key has not come; type its recovery key or a passphrase, or wait",
        "root: wrong key: no key slot of /dev/root takes it",
    ]
    (line,) = console.result(outcome)
    assert line.endswith(" s, by the key that was typed")
    assert outcome.facts["typed"] is True


def test_a_console_that_types_without_end_is_not_asked_as_fast(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attack: the host holds down the enter key, while each question and answer is noted in memory."""
    monkeypatch.setattr(prompt, "AGAIN", 0.3)
    desk.typed = [b""] * 10_000
    later(1, desk.comes_back.set)
    assert outcome_of(initrd(one(), timeout=60)).result == "opened"
    assert 1 < len(desk.questions) < 10


def test_what_the_key_provider_says_too_late_is_wiped(desk: Desk) -> None:
    late = Passphrase(RIGHT, strong=True)

    def answer() -> Passphrase:
        assert desk.comes_back.wait(LONG)
        return late

    desk.provider, desk.typed = answer, [RIGHT]
    assert outcome_of(initrd(one(), timeout=60)).typed
    assert bytes(late.reveal()) == RIGHT
    desk.comes_back.set()
    started = time.monotonic()
    while any(late.reveal()) and time.monotonic() - started < LONG:
        time.sleep(0.01)
    assert not any(late.reveal())


def test_a_key_provider_that_comes_back_opens_the_volume_and_the_prompt_goes_away(desk: Desk) -> None:

    def come_back() -> None:
        assert desk.standing.wait(LONG)
        desk.comes_back.set()

    threading.Thread(target=come_back, daemon=True).start()
    outcome = outcome_of(initrd(one()))
    assert (outcome.result, outcome.typed) == ("opened", False)
    assert desk.dismissed.is_set()
    assert len(desk.questions) == 1


def test_after_a_refusal_a_person_is_asked_at_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt, "SILENCE", LONG)
    desk.provider, desk.typed = desk.refuse, [RIGHT]
    started = time.monotonic()
    assert outcome_of(initrd(one(), timeout=60)).typed
    assert time.monotonic() - started < SILENCE


def test_a_provider_whose_secret_opens_nothing_is_no_reason_to_give_up(desk: Desk) -> None:
    desk.provider, desk.typed = (lambda: Passphrase(WRONG, strong=True)), [RIGHT]
    assert outcome_of(initrd(one(), timeout=60)).typed
    assert desk.opened_by == [WRONG, RIGHT]


def with_fallback(monkeypatch: pytest.MonkeyPatch, desk: Desk) -> Volume:
    """Return a volume whose first source is the desk's provider, and whose second one, asked at once, refuses."""
    second = Exec("get-key")

    def prepare(source: Encrypt) -> keys.Ask:
        return lambda _: desk.refuse() if source == second else desk.provider()

    monkeypatch.setattr(keys, "prepare", prepare)
    return dataclasses.replace(one(), fallbacks=(Fallback(second, 0),))


def test_a_person_competes_with_all_sources_of_a_volume(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is silent, one refuses."""
    desk.typed = [WRONG, RIGHT]
    outcome = outcome_of(initrd(with_fallback(monkeypatch, desk), timeout=60))
    assert (outcome.result, outcome.typed, outcome.opened_by) == ("opened", True, "")
    assert desk.looked_at == [WRONG, RIGHT]


def test_when_all_sources_have_failed_a_person_is_asked_at_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt, "SILENCE", LONG)
    one = with_fallback(monkeypatch, desk)
    desk.provider, desk.typed = desk.refuse, [RIGHT]
    started = time.monotonic()
    assert outcome_of(initrd(one, timeout=60)).typed
    assert time.monotonic() - started < SILENCE


def test_once_a_key_was_typed_no_further_source_is_asked() -> None:
    asked: list[str] = []

    def ask(name: str) -> keys.Passphrase:
        asked.append(name)
        time.sleep(LONG)
        return Passphrase(RIGHT, strong=True)

    race = Race()
    race.expect_key()
    race.start([Entrant(lambda: lambda: ask("first")), Entrant(lambda: lambda: ask("second"), after=0.5)], ahead=True)
    assert race.next() == Turn(0, {})
    race.offer(Passphrase(RIGHT, strong=False))
    found = race.next()
    assert isinstance(found, Answer)
    assert found.source is None
    race.stop()
    time.sleep(1)
    assert asked in ([], ["first"])


def test_credentials_that_are_unusable_are_no_reason_to_give_up(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(_: Encrypt) -> keys.Ask:
        raise KeyFetchError("the client key cannot be opened")

    monkeypatch.setattr(keys, "prepare", prepare)
    desk.typed = [RIGHT]
    assert outcome_of(initrd(one(), timeout=60)).typed


def test_no_key_is_typed_into_memory_that_may_be_swapped(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise CryptpilotError("this process's memory cannot be kept out of swap")

    monkeypatch.setattr(process, "lock_memory", refuse)
    desk.typed = [RIGHT]
    outcome = outcome_of(initrd(one(), timeout=60))
    assert (outcome.result, desk.questions) == ("failed", [])
    assert "out of swap" in str(outcome.error)


@pytest.mark.parametrize("plan", [initrd(one()), system(one(required=True))], ids=["root", "required"])
def test_what_the_boot_needs_is_waited_for_beyond_the_deadline_and_its_provider_asked_on(
    desk: Desk, plan: Plan
) -> None:
    later(plan.timeout + stage.GRACE + 1.5, desk.comes_back.set)
    outcome = outcome_of(plan)
    assert (outcome.result, outcome.typed) == ("opened", False)
    assert outcome.seconds > plan.timeout + stage.GRACE
    assert desk.dismissed.is_set()


@pytest.mark.usefixtures("desk")
def test_what_the_pivot_turns_out_to_need_has_its_provider_asked_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its disk appears after the root was mounted, whose fstab names it."""
    mounted = threading.Event()
    later(0.5, mounted.set)
    limits: list[float] = []

    def prepare(_: Encrypt) -> keys.Ask:
        def ask(seconds: float) -> Passphrase:
            limits.append(seconds)
            return Passphrase(RIGHT, strong=True)

        return ask

    monkeypatch.setattr(keys, "prepare", prepare)
    monkeypatch.setattr(block, "is_block_device", lambda _: mounted.is_set())
    plan = initrd(one("usr"), timeout=60)
    assert outcome_of(plan, pivot=lambda: ("usr",) if mounted.is_set() else None).result == "opened"
    assert limits == [math.inf]


def test_beyond_the_deadline_a_provider_that_cannot_be_reached_is_asked_again_and_again(desk: Desk) -> None:
    def unreachable() -> Passphrase:
        if desk.comes_back.is_set():
            return Passphrase(RIGHT, strong=True)
        raise KeyFetchError("connection refused", retryable=True)

    desk.provider = unreachable
    later(3, desk.comes_back.set)
    outcome = outcome_of(initrd(one()))
    assert (outcome.result, outcome.typed) == ("opened", False)


def test_a_volume_that_is_given_up_has_its_question_taken_back_while_others_go_on(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone: list[str] = []

    def ask(question: str, name: str, dismissal: person.Dismissal) -> Passphrase | None:
        answer = desk.ask(question, name, dismissal)
        gone.append(name)
        return answer

    monkeypatch.setattr(person, "ask", ask)
    early: list[list[str]] = []
    later(4, lambda: early.append(list(gone)))
    later(4.5, desk.comes_back.set)
    # of two secrets: what one of them answers is no answer for the other
    volumes = (one("data"), one("needed", required=True, encrypt=dataclasses.replace(KMS, secret_name="other")))
    results = {outcome.volume.volume: outcome.result for outcome in run_stage(system(*volumes), lambda _: None)}
    assert results == {"data": "failed", "needed": "opened"}
    assert early == [["cryptpilot:data"]]


def test_a_volume_that_is_given_up_is_let_go_while_others_are_waited_for(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds the lock of the volume, and would have its next source asked. Here both volumes share a secret."""
    asked: list[Encrypt] = []
    held: set[str] = set()
    second = Exec("get-key")

    def prepare(source: Encrypt) -> keys.Ask:
        def ask(_: float) -> Passphrase:
            asked.append(source)
            return desk.provider()

        return ask

    def open_volume(one: Volume, secret: Secret, **_: object) -> volume.Opened:
        held.add(one.volume)
        try:
            return desk.open_volume(one, secret)
        finally:
            held.discard(one.volume)

    monkeypatch.setattr(keys, "prepare", prepare)
    monkeypatch.setattr(volume, "open_volume", open_volume)
    after: list[set[str]] = []
    later(4, lambda: after.append(set(held)))
    later(4.5, desk.comes_back.set)
    data = dataclasses.replace(one("data"), fallbacks=(Fallback(second, 3),))
    results = {found.volume.volume: found.result for found in run_stage(system(data, one("needed", required=True)))}
    assert results == {"data": "failed", "needed": "opened"}
    assert after == [{"needed"}]
    assert second not in asked


@pytest.mark.parametrize("provider", ["silent", "refuse"])
def test_what_the_boot_does_not_need_is_asked_for_until_the_deadline(desk: Desk, provider: str) -> None:
    desk.provider = getattr(desk, provider)
    outcome = outcome_of(system(one("data")))
    assert outcome.result == "failed"
    assert len(desk.questions) == 1
    assert desk.dismissed.wait(LONG)
    if provider == "refuse":
        assert "not permitted" in str(outcome.error)


@pytest.mark.parametrize("how", ["typed", "refused"])
def test_a_key_that_is_typed_after_the_deadline_opens_though_the_disk_is_slow(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The device is read again then, before the key is taken."""

    def attempt(key: Passphrase, tried: list[bytes]) -> None:
        if tried is desk.opened_by:
            time.sleep(2 * stage.LOOK_AGAIN)
        Desk.attempt(desk, key, tried)

    def refuse_late() -> Passphrase:
        assert desk.standing.wait(LONG)
        time.sleep(1.5)
        return desk.refuse()

    monkeypatch.setattr(desk, "attempt", attempt)
    if how == "refused":
        desk.provider = refuse_late
    later(2 if how == "typed" else 5, lambda: desk.typed.append(RIGHT))
    assert outcome_of(initrd(one())).typed


def test_before_the_pivot_nobody_is_asked_for_what_it_does_not_need(desk: Desk) -> None:
    outcome = outcome_of(initrd(one("data")), pivot=tuple)
    assert (outcome.result, desk.questions) == ("left to the system stage", [])


def test_what_the_pivot_turns_out_to_need_is_asked_for(desk: Desk) -> None:
    desk.typed = [RIGHT]
    assert outcome_of(initrd(one("usr"), timeout=60), pivot=lambda: ("usr",)).typed


@pytest.mark.parametrize(
    "plan",
    [initrd(one(), ask=False), initrd(one(bound=False)), initrd(one(encrypt=Otp()))],
    ids=["off", "not bound", "temporary"],
)
def test_nobody_is_asked(desk: Desk, plan: Plan) -> None:
    """Who has the console may have the disk: any other disk would be opened by its own passphrase."""
    outcome = outcome_of(plan)
    assert (outcome.result, desk.questions) == ("failed", [])
    assert ("not bound" in str(desk.said)) is (plan.ask and plan.volumes[0].encrypt == KMS)


def test_where_nobody_can_be_asked_the_deadline_holds_and_it_is_said(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(*_: object) -> Passphrase | None:
        raise person.NoWay("systemd-ask-password is not there", "make another image")

    monkeypatch.setattr(person, "ask", ask)
    assert outcome_of(initrd(one())).result == "failed"
    assert (
        "root: its key cannot be asked for on the console: systemd-ask-password is not there; make another image"
        in desk.said
    )


def test_a_bug_in_the_prompt_ends_no_boot_in_silence(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(person, "ask", lambda: None)
    assert outcome_of(initrd(one())).result == "failed"
    assert any("its key cannot be asked for on the console: internal error: TypeError" in line for line in desk.said)


@pytest.mark.parametrize("what", ["look", "thread"])
def test_a_prompt_that_cannot_begin_is_its_own_trouble(desk: Desk, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """As where no file can be opened, or no thread be started: the stage goes on, for this volume and all others."""

    def look() -> bool:
        if threading.current_thread() is threading.main_thread():
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return True

    def start(thread: threading.Thread, begin: Callable[[threading.Thread], None] = threading.Thread.start) -> None:
        if "_work" in repr(getattr(thread, "_target", None)):
            raise RuntimeError("can't start new thread")
        begin(thread)

    if what == "look":
        monkeypatch.setattr(network, "has_route", look)
    else:
        monkeypatch.setattr(threading.Thread, "start", start)
    later(0.5, desk.comes_back.set)
    assert outcome_of(initrd(one())).result == "opened"
    assert any("its key cannot be asked for on the console: internal error" in line for line in desk.said)
    assert desk.questions == []


def test_a_prompt_that_an_interruption_ends_is_no_failure_of_the_volume(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prompt may have ended before the stage hears of the interruption."""
    asked_at: list[float] = []
    told: list[str] = []

    def ask(*_: object) -> Passphrase | None:
        asked_at.append(time.monotonic())
        raise Interrupted

    def interrupt() -> None:
        if asked_at and time.monotonic() > asked_at[0] + 0.5:
            raise KeyboardInterrupt

    monkeypatch.setattr(person, "ask", ask)
    desk.provider = desk.refuse
    with pytest.raises(KeyboardInterrupt):
        run_stage(initrd(one(), timeout=60), lambda outcome: told.append(outcome.result), interrupt)
    assert told == []


def test_a_prompt_that_was_left_comes_back(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[CryptpilotError | None] = [CryptpilotError("systemd-ask-password: no answer (exit status 1)"), None]

    def ask(question: str, name: str, dismissal: person.Dismissal) -> Passphrase | None:
        error = answers.pop(0)
        if error:
            raise error
        desk.typed = [RIGHT]
        return desk.ask(question, name, dismissal)

    monkeypatch.setattr(prompt, "PAUSE", 0.01)
    monkeypatch.setattr(person, "ask", ask)
    assert outcome_of(initrd(one(), timeout=60)).typed


def test_a_boot_that_cannot_go_on_for_another_reason_takes_the_question_back(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_volume(volume_: Volume, secret: Secret, **_: object) -> volume.Opened:
        if volume_.volume == "usr":
            assert desk.standing.wait(LONG)
            raise CryptpilotError("its header is damaged")
        return desk.open_volume(volume_, secret)

    monkeypatch.setattr(volume, "open_volume", open_volume)
    plan = dataclasses.replace(initrd(one(), one("usr"), timeout=60), needed=frozenset(["root", "usr"]))
    outcomes = {outcome.volume.volume: outcome for outcome in run_stage(plan, lambda _: None)}
    assert {name: outcome.result for name, outcome in outcomes.items()}["usr"] == "failed"
    assert desk.dismissed.is_set()


def test_while_the_question_stands_the_console_is_its_own() -> None:
    said: list[str] = []
    tell = console.brief(said.append)

    def event(step: str, phase: str, name: str, **facts: object) -> None:
        tell(log.Event(0.0, "", step, phase, name, None, facts))

    event("fetch-key", "wait", "root", waiting_for="KMS")
    event(steps.PROMPT, "begin", "root")
    event("fetch-key", "wait", "root", waiting_for="something else")
    event("fetch-key", "busy", "data", doing="something")
    event("any", "note", "data", notice="this is for a person")
    event("fetch-key", "note", "root", notice="asking fallback1 too")
    event(steps.PROMPT, "end", "root")
    event("fetch-key", "wait", "root", waiting_for="KMS again")
    event("outcome", "end", "root")
    event("fetch-key", "wait", "root", waiting_for="for a volume that is open")
    assert said == ["root: waiting: KMS", "this is for a person", "root: waiting: KMS again"]


# --- what is typed


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Template, Template]:
    """The volume's disk, and one that who has the console has made."""
    work = tmp_path_factory.mktemp("headers")
    return Template.made(work / "own.img", RIGHT), Template.made(work / "theirs.img", b"theirs")


@pytest.fixture
def disk(templates: tuple[Template, Template], monkeypatch: pytest.MonkeyPatch) -> Volume:
    """A volume, bound to its disk, which is an ordinary file here."""
    look_up_files(monkeypatch)
    own = dataclasses.replace(one(encrypt=Exec("true")), dev=str(templates[0].image), identity=None)
    header, facts = luks_header.copy_from(own.dev)
    header.close()
    return dataclasses.replace(own, identity=identity.of(facts, Path("/identity")))


def test_a_passphrase_of_the_header_is_taken_and_another_is_not(disk: Volume) -> None:
    with prompt.opening_key(disk, Passphrase(RIGHT, strong=False)) as key:
        assert bytes(key.reveal()) == RIGHT
    with pytest.raises(CryptpilotError, match="wrong key: no key slot"):
        prompt.opening_key(disk, Passphrase(WRONG, strong=False))


def test_a_disk_of_somebody_else_is_refused_with_its_own_passphrase(
    disk: Volume, templates: tuple[Template, Template]
) -> None:
    swapped = dataclasses.replace(disk, dev=str(templates[1].image))
    with pytest.raises(CryptpilotError, match="holds another volume than the one"):
        prompt.opening_key(swapped, Passphrase(b"theirs", strong=False))


def test_a_recovery_key_is_taken_however_it_is_written_and_a_slip_is_named(
    disk: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[bytes] = []
    with recovery.generate() as made:
        right = bytes(made.reveal())

    def verify(_: Volume, secret: Secret) -> None:
        with secret.next().passphrase as key:
            tried.append(bytes(key.reveal()))
            if tried[-1] != right:
                raise volume.WrongSecret("no")

    monkeypatch.setattr(volume, "verify", verify)
    for typed in (right, right.upper().replace(b"-", b" ")):
        with prompt.opening_key(disk, Passphrase(typed, strong=False)) as key:
            assert bytes(key.reveal()) == right
    slipped = bytearray(right)
    slipped[20] = ord("c") if slipped[20] != ord("c") else ord("b")
    with pytest.raises(CryptpilotError, match="the recovery key is mistyped: look at group 3"):
        prompt.opening_key(disk, Passphrase(slipped, strong=False))
    with pytest.raises(CryptpilotError, match="mistyped: it has 64 letters rather than 72"):
        prompt.opening_key(disk, Passphrase(right[:-9], strong=False))
    with pytest.raises(CryptpilotError, match="wrong key"):
        prompt.opening_key(disk, Passphrase(b"nine words that are no recovery key at all", strong=False))
