"""What the initrd's stage and the booted system's answer, each about its own volumes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from cryptpilot_boot.boot import failures
from cryptpilot_boot.boot.initrd import Initrd
from cryptpilot_boot.boot.outcome import Outcome
from cryptpilot_boot.boot.plan import Plan
from cryptpilot_boot.boot.system import System
from cryptpilot_boot.config import Kms, Volume
from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.system import exitrd, init

KMS = Kms("kst-1", "secret", "{}", "password", "pem")


def one(name: str) -> Volume:
    return Volume(name, f"/dev/{name}", KMS, Path(f"{name}.toml"), auto_open=True)


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Be in an initrd with systemd whose root is not mounted; return what is done to the boot."""
    acts: list[str] = []
    monkeypatch.setattr(init, "in_initrd", lambda: True)
    monkeypatch.setattr(init, "runs_systemd", lambda: True)
    monkeypatch.setattr(init, "next_fstab", lambda: None)
    monkeypatch.setattr(init, "is_mounted_for_pivot", lambda _: False)
    for module, name in ((exitrd, "claim"), (exitrd, "keep"), (init, "say_late"), (init, "say_over")):
        monkeypatch.setattr(module, name, lambda name=name: acts.append(name))
    monkeypatch.setattr(init, "stop_boot", lambda: acts.append("stop_boot"))
    return acts


def initrd(*names: str) -> Initrd:
    plan = Plan("initrd", tuple(one(name) for name in names), frozenset(), 60, verbose=False, next_stage=True)
    return Initrd(plan, "root=/dev/vda1", lambda _: None, lambda: None, shell=False)


def outcome(name: str, *, error: bool = False, needed: bool = False) -> Outcome:
    return Outcome(one(name), "initrd", 1.0, CryptpilotError("no way") if error else None, needed=needed)


@pytest.mark.usefixtures("done")
def test_what_the_pivot_needs_is_not_known_before_the_root_is_mounted() -> None:
    assert initrd("usr", "data").needed_by_pivot() is None
    assert initrd("usr", "data").needed_before_network() == frozenset()


@pytest.mark.usefixtures("done")
def test_the_roots_fstab_says_what_the_pivot_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "/dev/mapper/usr /usr ext4\n/dev/mapper/data /data ext4 x-initrd.mount\n/dev/mapper/var /var ext4\n"
    monkeypatch.setattr(init, "next_fstab", lambda: lines)
    assert initrd("usr", "data", "var", "other").needed_by_pivot() == frozenset(["usr", "data"])
    assert initrd("usr", "data", "var", "other").needed_before_network() >= {"var"}


@pytest.mark.parametrize(
    ("systemd", "mounted", "needed"),
    [(True, False, None), (True, True, frozenset()), (False, False, frozenset())],
    ids=["not mounted yet", "mounted", "mounted by dracut once this has ended"],
)
@pytest.mark.usefixtures("done")
def test_what_is_no_name_of_a_volume_may_lie_on_one(
    monkeypatch: pytest.MonkeyPatch, *, systemd: bool, mounted: bool, needed: frozenset[str] | None
) -> None:
    monkeypatch.setattr(init, "next_fstab", lambda: "UUID=1 /usr ext4\n")
    monkeypatch.setattr(init, "runs_systemd", lambda: systemd)
    monkeypatch.setattr(init, "is_mounted_for_pivot", lambda where: mounted and where == "/usr")
    assert initrd("data").needed_by_pivot() == needed


@pytest.mark.parametrize(
    ("outcomes", "good", "acts"),
    [
        ([outcome("a"), outcome("b", error=True)], True, ["claim", "say_late", "say_over", "keep"]),
        ([outcome("a", error=True, needed=True)], False, ["claim", "say_late", "stop_boot"]),
    ],
    ids=["goes on", "stops"],
)
def test_only_a_volume_that_the_pivot_needs_stops_the_boot(
    done: list[str], outcomes: list[Outcome], acts: list[str], *, good: bool
) -> None:
    stage = initrd("a", "b")
    stage.begin()
    stage.on_deferral()
    assert stage.end(outcomes) is good
    assert done == acts


def test_without_an_initrd_around_it_the_stage_leaves_the_boot_alone(
    done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(init, "in_initrd", lambda: False)
    stage = initrd("a")
    stage.begin()
    stage.on_deferral()
    assert not stage.end([outcome("a", error=True, needed=True)])
    assert done == []


@pytest.mark.parametrize(
    ("error", "problems", "good"), [(False, False, True), (True, False, False), (False, True, False)]
)
def test_the_booted_system_needs_every_volume_and_every_file(*, error: bool, problems: bool, good: bool) -> None:
    plan = Plan("system", (one("a"),), frozenset(), 60, verbose=False)
    stage = System(plan, lambda _: None, problems=problems, whole=True)
    assert (stage.needed_by_pivot(), stage.needed_before_network()) == (frozenset(), frozenset())
    assert stage.end([outcome("a", error=error)]) is good


@pytest.mark.parametrize("whole", [True, False])
def test_a_failure_is_noted_for_the_volumes_unit_unless_that_asked(
    monkeypatch: pytest.MonkeyPatch, *, whole: bool
) -> None:
    noted: dict[str, list[str]] = {}
    said: list[str] = []
    monkeypatch.setattr(failures, "record", noted.__setitem__)
    stage = System(
        Plan("system", (one("a"),), frozenset(), 60, verbose=False), said.append, problems=False, whole=whole
    )
    stage.report(dataclasses.replace(outcome("a", error=True), stage="system"))
    assert said[0] == 'volume "a" could not be opened'
    assert noted == ({"a": said} if whole else {})
