"""`cryptpilot boot report`: from an event log to a timeline, a table, JSON and a picture."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryptpilot_boot import log
from cryptpilot_boot.commands import boot_report
from cryptpilot_boot.errors import CryptpilotError, ProgramError
from cryptpilot_boot.report import eventlog, results, spans
from cryptpilot_boot.report.picture import draw
from cryptpilot_boot.report.report import Report, periods, report
from cryptpilot_boot.report.results import VolumeResult
from cryptpilot_boot.report.spans import Pause, Span
from cryptpilot_boot.report.summary import summary
from cryptpilot_boot.system import init
from tests.unit.test_cli import run

if TYPE_CHECKING:
    from collections.abc import Sequence

LOGS = Path(__file__).parent / "logs"
"""Event logs of boots in QEMU, and the tables made of them there: one came up, one found its KMS out of reach."""
GOOD = {"kernel": 0.0, "initrd": 6.64, "pivot": 34.425}
BAD = {"kernel": 0.0, "initrd": 6.073}
"""What systemd said of these boots."""

Line = dict[str, Any]


def line(boot: float, step: str, phase: str = "note", volume: str = "", **more: Any) -> Line:
    """Return a line of an event log, of the initrd if nothing else is said; what is no field of it is a fact."""
    known: Line = {name: more.pop(name) for name in ("stage", "seconds") if name in more}
    return {"stage": "initrd", "boot": boot, "step": step, "phase": phase, "volume": volume, **known, "facts": more}


def text(lines: Sequence[Line]) -> bytes:
    return "".join(f"{json.dumps(one)}\n" for one in lines).encode()


def made_of(*lines: Line, milestones: dict[str, float] | None = None) -> Report:
    records, damaged = eventlog.parse(text(lines))
    assert damaged == []
    return report(records, milestones)


def of_log(name: str, milestones: dict[str, float] | None = None) -> Report:
    records, problems = eventlog.read(LOGS / name)
    assert problems == []
    return report(records, milestones)


def result_of(*lines: Line) -> VolumeResult:
    (only,) = made_of(*lines).volumes
    return only


# the log


def test_what_the_agent_writes_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    write = eventlog.writer("system", path)
    events = [
        log.Event(1.5, "2026-01-01T00:00:00.000+00:00", "open", "begin", "data", None, {"device": "/dev/vdb"}),
        log.Event(2.5, "2026-01-01T00:00:01.000+00:00", "open", "fail", "data", 1.0, {"error": "\udce4\u2028é"}),
    ]
    for event in events:
        write(event)
    assert eventlog.read(path) == ([eventlog.LoggedEvent("system", event, os.getpid()) for event in events], [])


WRONG_FIELDS: list[Line] = [
    {"boot": None},
    {"boot": True},
    {"boot": -1},
    {"boot": float("nan")},
    {"boot": float("inf")},
    {"boot": 10**400},
    {"seconds": "1"},
    {"seconds": -0.5},
    {"phase": "ended"},
    {"phase": ["end"]},
    {"stage": 3},
    {"step": ""},
    {"volume": None},
    {"facts": []},
]


@pytest.mark.parametrize(
    "damaged",
    [
        b'{"stage": "initrd", "boot": 7.1, "step": "rea',
        b"\xff\xfe",
        b"\0\0\0\0",
        b"[]",
        b"null",
        b"{}",
        b'{"a":' * 100_000,
        b"9" * 5000,
        *(text([{**line(7.0, "open", "end", "root", seconds=1.0), **wrong}]).strip() for wrong in WRONG_FIELDS),
    ],
)
def test_a_damaged_line_is_passed_over_and_told(tmp_path: Path, damaged: bytes) -> None:
    path = tmp_path / "events.jsonl"
    good = [line(6.0, "start"), line(8.0, "done")]
    path.write_bytes(text(good[:1]) + damaged + b"\n" + text(good[1:]))
    records, problems = eventlog.read(path)
    assert [record.event.step for record in records] == ["start", "done"]
    assert problems == [f"{path}: line 2 is damaged and was skipped"]


def test_many_damaged_lines_are_one_problem(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(text([line(6.0, "start")]) + b"x\n" * 1000)
    (problem,) = eventlog.read(path)[1]
    assert problem == f"{path}: 1000 lines are damaged and were skipped, the first of them line 2"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no event log"),
        (b"", "the event log is empty"),
        (b"\n \n", "the event log is empty"),
        (b"what is this\n", "no line of it is an event"),
    ],
)
def test_without_a_log_there_is_an_error_and_a_next_step(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: bytes | None, said: str
) -> None:
    path = tmp_path / "events.jsonl"
    if content is not None:
        path.write_bytes(content)
    status, out, err = run(capsys, "boot", "report", "--log", str(path))
    assert (status, out) == (1, "")
    assert err.startswith(f"cryptpilot: error: {path}: {said}\ncryptpilot:   ")


def test_the_log_is_roots(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    status, out, err = run(capsys, "boot", "report", "--log", str(tmp_path))
    assert (status, out) == (1, "")
    assert err == f"cryptpilot: error: {tmp_path}: cannot be read: Permission denied\ncryptpilot:   run this as root\n"


def test_a_file_that_is_much_too_large_is_not_read_on(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(CryptpilotError, match="is larger than 64 MiB"):
        eventlog.read(path)


# the timeline


def test_a_boot_that_came_up() -> None:
    whole = of_log("good.jsonl", GOOD)
    assert [(step.stage, step.volume, step.step) for step in whole.steps] == [
        ("initrd", "root", "prepare"),
        ("initrd", "root", "wait-device"),
        ("initrd", "root", "fetch-key"),
        ("initrd", "root", "open"),
        ("system", "root", "prepare"),
        ("system", "scratch", "prepare"),
        ("system", "scratch", "wait-device"),
        ("system", "root", "wait-device"),
        ("system", "scratch", "fetch-key"),
        ("system", "scratch", "format"),
        ("system", "scratch", "makefs"),
        ("system", "scratch", "open"),
    ]
    assert {step.result for step in whole.steps} == {spans.ENDED}
    resolving = "kst-bjj67d004a85ykq80test.cryptoservice.kms.aliyuncs.com cannot be resolved: no name server answers"
    assert whole.steps[2] == Span(
        22.14, 1.586, "initrd", 1, "root", "fetch-key", spans.ENDED, waits=(Pause(22.727, 0.627, resolving),)
    )
    assert [(mark.stage, mark.name) for mark in whole.marks] == [
        ("", "kernel"),
        ("", "initrd"),
        *(("initrd", name) for name in ("start", "ready", "network-up", "done")),
        ("", "pivot"),
        *(("system", name) for name in ("start", "network-up", "ready", "done")),
    ]
    root, scratch = whole.volumes
    assert (root.volume, root.result, root.stage, root.at) == ("root", results.OPENED, "initrd", 25.95)
    assert (scratch.volume, scratch.result, scratch.stage, scratch.at) == ("scratch", results.OPENED, "system", 77.769)
    assert whole.problems == ()


def test_a_step_that_never_ended_lasts_to_the_last_word_of_its_stage() -> None:
    whole = made_of(
        line(1.0, "start"),
        line(2.0, "fetch-key", "begin", "data"),
        line(3.0, "fetch-key", "wait", "data", waiting_for="the gateway"),
        line(9.0, "network-up"),
        line(20.0, "start", stage="system"),
    )
    (step,) = whole.steps
    assert (step.at, step.seconds, step.result) == (2.0, 7.0, spans.UNFINISHED)
    assert step.waits == (Pause(3.0, 6.0, "the gateway"),)
    (data,) = whole.volumes
    assert (data.result, data.error) == (
        spans.UNFINISHED,
        "fetch-key has not ended; it waits for: the gateway",
    )
    assert data.hint


def test_a_step_whose_begin_is_lost_began_when_its_seconds_say() -> None:
    (step,) = made_of(line(5.0, "open", "end", "data", seconds=2.0)).steps
    assert (step.at, step.seconds, step.result) == (3.0, 2.0, spans.ENDED)


def test_a_step_that_begins_twice_was_broken_off() -> None:
    first, second = made_of(
        line(1.0, "open", "begin", "data"),
        line(3.0, "open", "begin", "data"),
        line(4.0, "open", "end", "data", seconds=1.0),
    ).steps
    assert (first.at, first.seconds, first.result) == (1.0, 2.0, spans.UNFINISHED)
    assert (second.at, second.seconds, second.result) == (3.0, 1.0, spans.ENDED)


@pytest.mark.parametrize(("seconds", "waited"), [(0.05, ()), (4.0, (Pause(1.0, 4.0, "/dev/vdb"),))])
def test_a_device_is_waited_for_if_it_takes_noticeable_time(seconds: float, waited: tuple[Pause, ...]) -> None:
    (step,) = made_of(
        line(1.0, "wait-device", "begin", "data", device="/dev/vdb"),
        line(1.0 + seconds, "wait-device", "end", "data", seconds=seconds, device="/dev/vdb"),
    ).steps
    assert step.waits == waited


def test_waits_say_for_how_long_what_was_waited_for() -> None:
    (step,) = made_of(
        line(10.0, "fetch-key", "begin", "data"),
        line(11.0, "fetch-key", "wait", "data", waiting_for="a name server"),
        line(12.0, "fetch-key", "wait", "data", waiting_for="a name server"),
        line(14.0, "fetch-key", "wait", "data", waiting_for="the gateway"),
        line(17.0, "fetch-key", "wait", "data", waiting_for="the gateway"),
        line(17.5, "fetch-key", "end", "data", seconds=7.5),
    ).steps
    assert step.waits == (Pause(11.0, 3.0, "a name server"), Pause(14.0, 3.0, "the gateway"))


def test_a_file_that_cannot_be_used_is_a_problem_and_no_step() -> None:
    whole = made_of(line(1.0, "config", "fail", error="v.toml:1: is wrong"), line(1.1, "start"), line(2.0, "done"))
    assert (whole.steps, whole.problems) == ((), ("initrd: v.toml:1: is wrong",))


def test_a_service_that_is_started_again_is_another_run_on_its_own_scale() -> None:
    again = 260_000.0
    whole = made_of(
        line(5.0, "start", stage="system"),
        line(6.0, "open", "begin", "data", stage="system"),
        line(again, "config", "fail", stage="system", error="bad"),
        line(again + 1, "start", stage="system"),
        line(again + 2, "open", "begin", "data", stage="system"),
        line(again + 3, "open", "end", "data", stage="system", seconds=1.0),
        line(again + 4, "done", stage="system"),
        milestones={"kernel": 0.0, "finished": 30.0},
    )
    assert [(step.run, step.result) for step in whole.steps] == [(1, spans.UNFINISHED), (2, spans.ENDED)]
    first, second = periods(whole)
    assert (first.begin, first.end, [mark.name for mark in first.marks]) == (5.0, 6.0, ["kernel", "start", "finished"])
    assert (second.begin, second.end, [mark.name for mark in second.marks]) == (again + 1, again + 4, ["start", "done"])
    assert whole.problems == ("system: bad",)


# the volumes


OPENED = line(4.0, "outcome", "end", "data", seconds=3.0, result="opened", device="/dev/vdb", provider="otp")
FAILED = line(
    5.0,
    "outcome",
    "fail",
    "data",
    seconds=4.0,
    result="failed",
    error="no key slot",
    hint="check the secret",
    device="/dev/vdb",
    provider="KMS instance kst-1",
    endpoint="kst-1:443",
    needed=True,
)
LEFT = {**FAILED, "facts": {**FAILED["facts"], "result": "left to the system stage", "needed": False}}
ALREADY = line(20.0, "outcome", "end", "data", stage="system", seconds=1.0, result="was open already")


def test_the_outcome_of_a_volume_is_what_the_log_says() -> None:
    assert result_of(OPENED) == VolumeResult(
        "data", results.OPENED, "initrd", 1, 4.0, device="/dev/vdb", provider="otp"
    )
    assert result_of(FAILED) == VolumeResult(
        "data",
        spans.FAILED,
        "initrd",
        1,
        5.0,
        needed=True,
        error="no key slot",
        hint="check the secret",
        device="/dev/vdb",
        provider="KMS instance kst-1",
        endpoint="kst-1:443",
    )
    assert made_of(OPENED).steps == ()


def test_a_volume_that_was_open_already_was_opened_before() -> None:
    assert result_of(OPENED, ALREADY) == result_of(OPENED)
    assert result_of(ALREADY).result == results.ALREADY_OPEN


def test_a_volume_the_initrd_left_was_opened_later() -> None:
    late = {**OPENED, "stage": "system", "boot": 21.0}
    found = result_of(LEFT, late)
    assert (found.result, found.stage, found.at) == (results.OPENED, "system", 21.0)
    (before,) = found.before
    assert (before.result, before.stage, before.error) == (results.LEFT, "initrd", "no key slot")
    assert summary(made_of(LEFT, late)) == [
        "data: opened by the system stage at 21.000 s",
        "  before:   not opened by the initrd stage, given up at 5.000 s and left to the system stage",
        "    failed:   no key slot",
        "    to do:    check the secret",
    ]


def test_a_volume_that_the_previous_value_of_its_secret_opened_is_to_be_rotated() -> None:
    typed = {**OPENED, "facts": {**OPENED["facts"], "typed": True}}
    assert result_of(typed) == dataclasses.replace(result_of(OPENED), typed=True)
    previous = {**OPENED, "facts": {**OPENED["facts"], "rotation_pending": True}}
    assert result_of(previous) == dataclasses.replace(result_of(OPENED), rotation_pending=True)
    assert summary(made_of(previous)) == [
        "data: opened by the initrd stage at 4.000 s",
        "  warning:  the previous value of its secret opened it",
        "  to do:    cryptpilot rotate data",
    ]


def test_a_volume_that_failed_is_told_with_what_to_do() -> None:
    assert summary(made_of(FAILED)) == [
        "data: could not be opened by the initrd stage, given up at 5.000 s; the boot cannot go on without it",
        "  device:   /dev/vdb",
        "  provider: KMS instance kst-1",
        "  endpoint: kst-1:443",
        "  failed:   no key slot",
        "  to do:    check the secret",
    ]


@pytest.mark.parametrize(
    ("lines", "result", "at", "error"),
    [
        ([line(2.0, "open", "end", "data", seconds=1.0), line(9.0, "done")], results.OPENED, 2.0, ""),
        (
            [line(2.0, "open", "fail", "data", seconds=1.0, error="no key slot"), line(9.0, "done")],
            spans.FAILED,
            2.0,
            "no key slot",
        ),
        (
            [line(2.0, "open", "begin", "data"), line(9.0, "done")],
            spans.UNFINISHED,
            9.0,
            "open has not ended",
        ),
        (
            [line(2.0, "prepare", "end", "data", seconds=1.0)],
            spans.UNFINISHED,
            2.0,
            "the agent has not ended",
        ),
        (
            [line(2.0, "prepare", "end", "data", seconds=1.0), line(9.0, "done")],
            results.UNKNOWN,
            9.0,
            "",
        ),
    ],
    ids=["opened", "failed", "hangs", "killed", "unknown"],
)
def test_without_an_outcome_the_steps_tell(lines: list[Line], result: str, at: float, error: str) -> None:
    found = result_of(line(0.5, "start"), *lines)
    assert (found.result, found.at, found.error) == (result, at, error)


# for people


def test_the_table_of_a_boot_that_came_up() -> None:
    whole = of_log("good.jsonl", GOOD)
    assert boot_report.as_table(whole, 72) == (LOGS / "good.txt").read_text().splitlines()


def test_the_table_of_a_boot_that_did_not() -> None:
    assert boot_report.as_table(of_log("bad.jsonl", BAD), 72) == (LOGS / "bad.txt").read_text().splitlines()


@pytest.mark.parametrize("width", [72, 100, 200])
@pytest.mark.parametrize("name", ["good.jsonl", "bad.jsonl"])
def test_a_table_is_as_wide_as_it_may(name: str, width: int) -> None:
    lines = boot_report.as_table(of_log(name), width)
    assert max(map(len, lines[: lines.index("")])) == width


def bar(*lines: Line) -> str:
    """Return the bar of the first row but one, which spans all but a tenth of the table; without its blanks."""
    rows = boot_report.as_table(made_of(line(0.0, "start"), *lines, line(10.0, "done")), 100)
    return rows[2].split()[-1]


def test_a_bar_shows_work_waits_and_how_it_ended() -> None:
    begin = line(1.0, "fetch-key", "begin", "data")
    waits = [line(at, "fetch-key", "wait", "data", waiting_for="x") for at in (4.0, 7.0)]

    def end(phase: str) -> Line:
        return line(10.0, "fetch-key", phase, "data", seconds=9.0)

    def shape(text: str) -> str:
        return "".join(char for number, char in enumerate(text) if number == 0 or char != text[number - 1])

    assert shape(bar(begin, end("end"))) == "="
    assert shape(bar(begin, *waits, end("end"))) == "=.="
    assert shape(bar(begin, *waits, end("fail"))) == "!.!"
    assert shape(bar(begin, end("fail"))) == "!"
    assert shape(bar(begin, *waits)) == "?.?"  # it waits still, as far as anybody knows
    assert shape(bar(begin)) == "?"


def test_a_very_long_name_does_not_eat_the_table() -> None:
    rows = boot_report.as_table(made_of(line(1.0, "open", "end", 300 * "v", seconds=1.0)), 72)
    assert max(map(len, rows[:2])) <= 72


@pytest.mark.parametrize("at", [0.0, 1e9])
def test_a_log_of_one_moment_has_a_table_and_a_picture(at: float) -> None:
    whole = made_of(line(at, "start"))
    assert boot_report.as_table(whole, 72)[1].split() == [f"{at:.3f}", "initrd", "start", "|"]
    assert elements(whole, "line")


# for programs


def test_the_json_of_a_boot(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "boot", "report", "--json", "--log", str(LOGS / "bad.jsonl"))
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert list(found) == ["volumes", "steps", "marks", "problems"]
    (root,) = found["volumes"]
    assert (root["volume"], root["result"], root["stage"]) == ("root", "failed", "initrd")
    assert "connection refused" in root["error"]
    step = found["steps"][-1]
    assert (step["step"], step["result"]) == ("fetch-key", "failed")
    assert {wait["waiting_for"].rpartition(": ")[2] for wait in step["waits"]} >= {"connection refused"}


# the picture

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = """<script>alert(1)</script> & "quoted" 'too' ]]> {bottom} \x00\x1b[31m\u202e\ud800\n%s"""


def elements(whole: Report, name: str) -> list[ElementTree.Element]:
    """Return the elements of a picture, which is XML, by their name."""
    svg = "\n".join(draw(whole))
    return list(ElementTree.fromstring(svg.encode()).iter(SVG + name))  # noqa: S314 - it is ours


def words(whole: Report) -> list[str]:
    return [element.text or "" for element in elements(whole, "text")]


def test_the_picture_of_a_boot_shows_every_step_moment_and_volume() -> None:
    whole = of_log("good.jsonl", GOOD)
    said = words(whole)
    assert {f"{step.step}, {step.seconds:.3f} s" for step in whole.steps} <= set(said)
    assert {f"{mark.stage}: {mark.name}" if mark.stage else mark.name for mark in whole.marks} <= set(said)
    assert {"initrd stage", "system stage", "root", "scratch"} <= set(said)
    assert "root: opened by the initrd stage at 25.950 s" in said
    bars = [rect for rect in elements(whole, "rect") if rect.get("class", "").startswith("bar ended")]
    assert len(bars) == 1 + len(whole.steps)  # one is the legend's
    (svg,) = elements(whole, "svg")
    background = svg.find(f"{SVG}rect")
    assert background is not None
    assert background.attrib == {"width": svg.get("width"), "height": svg.get("height"), "fill": "#ffffff"}
    assert elements(whole, "script") == elements(whole, "image") == []


def test_the_picture_of_a_failure_is_red_and_tells_it() -> None:
    whole = of_log("bad.jsonl")
    failed = [group for group in elements(whole, "g") if group.find(f"{SVG}rect[@class='bar failed']") is not None]
    (title,) = (group.findtext(f"{SVG}title") or "" for group in failed)
    assert whole.steps[-1].error in title
    assert "waited " in title
    assert "connection refused" in " ".join(words(whole))


@pytest.mark.parametrize("name", ["good.jsonl", "bad.jsonl"])
def test_nothing_of_a_picture_is_outside_of_it(name: str) -> None:
    whole = of_log(name, GOOD)
    (svg,) = elements(whole, "svg")
    width, height = float(svg.get("width", 0)), float(svg.get("height", 0))
    for rect in elements(whole, "rect"):
        x, y, w, h = (float(rect.get(key, 0)) for key in ("x", "y", "width", "height"))
        assert 0 <= x <= x + w <= width, ElementTree.tostring(rect)
        assert 0 <= y <= y + h <= height, ElementTree.tostring(rect)


def test_no_moments_line_crosses_the_name_of_another() -> None:
    marks = [line(at, f"moment{number}") for number, at in enumerate((1.0, 1.01, 1.02, 1.5, 1.51, 3.0, 9.0, 9.0))]
    groups = [group for group in elements(made_of(*marks), "g") if group.find(f"{SVG}line") is not None]
    assert len(groups) == len(marks)
    placed = []
    for group in groups:
        rule, name = group.find(f"{SVG}line"), group.find(f"{SVG}text")
        assert rule is not None
        assert name is not None
        placed.append((float(rule.get("x1", 0)), float(rule.get("y1", 0)), name.text or ""))
    for x, y, _ in placed:
        for left, top, label in placed:
            if left < x < left + 6.3 * len(label):  # pixels, as the picture counts them
                assert y >= top + 16, label


@pytest.mark.parametrize("field", ["stage", "step", "volume", "error"])
def test_what_comes_from_outside_is_text_and_nothing_else(field: str) -> None:
    one = line(5.0, "open", "fail", "data", seconds=2.0, error="no")
    bad = {**one, "facts": {"error": HOSTILE}} if field == "error" else {**one, field: HOSTILE}
    whole = made_of(bad, line(6.0, HOSTILE, stage=HOSTILE if field == "stage" else "initrd"))
    assert elements(whole, "script") == []
    safe = HOSTILE.translate({ord(char): " " for char in "\x00\x1b\u202e\ud800\n"})
    shown = [*words(whole), *(title.text or "" for title in elements(whole, "title"))]
    assert any(safe in one for one in shown)
    assert all(one.isprintable() for one in boot_report.as_table(whole, 72))


def write_picture(capsys: pytest.CaptureFixture[str], to: Path) -> tuple[int, str, str]:
    return run(capsys, "boot", "report", "--log", str(LOGS / "good.jsonl"), "--svg", str(to))


def test_a_picture_is_written_for_root_alone_in_the_place_of_an_old_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file, link = tmp_path / "boot.svg", tmp_path / "link.svg"
    file.write_text("an old one")
    link.symlink_to(file)
    assert write_picture(capsys, link) == (0, "", "")
    assert file.read_text().splitlines() == draw(of_log("good.jsonl"))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert link.is_symlink()
    assert sorted(tmp_path.iterdir()) == [file, link]


def test_a_picture_goes_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "boot", "report", "--log", str(LOGS / "good.jsonl"), "--svg", "-")
    assert (status, err) == (0, "")
    assert out.splitlines() == draw(of_log("good.jsonl"))


def test_a_picture_that_cannot_be_written_leaves_the_old_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    file = tmp_path / "boot.svg"
    file.write_text("an old one")
    monkeypatch.setattr(os, "fsync", fail)
    said = f"cryptpilot: error: {file}: cannot be written: No space left on device\n"
    assert write_picture(capsys, file) == (1, "", said)
    assert file.read_text() == "an old one"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("place", ["pipe", ".", "none/boot.svg", 300 * "x"])
def test_a_picture_does_not_replace_what_is_no_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, place: str
) -> None:
    """The pipe stands for /dev/null, which a test that fails would take away from the whole machine."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    status, out, err = write_picture(capsys, tmp_path / place)
    assert (status, out) == (1, "")
    assert "internal error" not in err
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert list(tmp_path.iterdir()) == [pipe]


# the command


def test_a_report_needs_no_configuration(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "volumes").mkdir()
    (tmp_path / "volumes" / "v.toml").write_text("volume = 3\n")
    for directory in (tmp_path, tmp_path / "none"):
        status, out, err = run(capsys, "-c", str(directory), "boot", "report", "--log", str(LOGS / "good.jsonl"))
        assert (status, err) == (0, "")
        assert "root: opened by the initrd stage" in out


def test_no_other_command_and_no_boot_loads_it() -> None:
    loaded = "import cryptpilot_boot.cli.main, cryptpilot_boot.commands.boot_service, sys; print(*sys.modules)"
    names = subprocess.run([sys.executable, "-c", loaded], check=True, capture_output=True, text=True).stdout.split()
    found = {name for name in names if name.startswith("cryptpilot_boot.report.")}
    assert found == {"cryptpilot_boot.report.eventlog"}


def test_this_boots_report_has_the_machines_moments_another_machines_has_not(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(text([line(1.0, "start")]))
    monkeypatch.setattr(eventlog, "PATH", path)
    monkeypatch.setattr(init, "milestones", lambda: {"kernel": 0.0})
    assert "kernel" in run(capsys, "boot", "report")[1]
    assert "kernel" not in run(capsys, "boot", "report", "--log", str(path))[1]


def answering(monkeypatch: pytest.MonkeyPatch, **times: int) -> None:
    """Have systemctl answer with these microseconds."""
    said = "".join(f"{name}TimestampMonotonic={value}\n" for name, value in times.items())
    monkeypatch.setattr(init, "run", lambda _: (0, said))


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (
            {"Kernel": 0, "InitRD": 4_500_000, "Userspace": 15_500_000, "Finish": 0},
            {"kernel": 0.0, "initrd": 4.5, "pivot": 15.5},
        ),
        ({"Kernel": 0, "InitRD": 4_500_000, "Userspace": 4_500_000}, {"kernel": 0.0, "initrd": 4.5}),
        (
            {"Kernel": 0, "InitRD": 0, "Userspace": 2_000_000, "Finish": 9_000_000},
            {"kernel": 0.0, "userspace": 2.0, "finished": 9.0},
        ),
        ({}, {}),
    ],
    ids=["booted", "in the initrd", "no initrd", "nothing"],
)
def test_what_systemd_tells(monkeypatch: pytest.MonkeyPatch, times: dict[str, int], expected: dict[str, float]) -> None:
    answering(monkeypatch, **times)
    assert init.milestones() == expected


def test_a_systemd_that_cannot_be_asked_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Sequence[str]) -> None:
        raise ProgramError("systemctl: Failed to connect to bus: Host is down (exit status 1)")

    monkeypatch.setattr(init, "run", refuse)
    assert init.milestones() == {}


# anything at all

_NUMBERS = st.none() | st.floats() | st.integers() | st.floats(0, 100) | st.integers(0, 10**9)
_WORDS = st.text() | st.sampled_from(
    ["", "root", "data", "start", "done", "config", "open", "fetch-key", "wait-device"]
)
_FACTS = st.dictionaries(
    st.sampled_from(["error", "hint", "waiting_for", "device", "result", "needed"]),
    st.none() | st.booleans() | st.text() | st.floats() | st.lists(st.text()),
)
_LINES = st.fixed_dictionaries(
    {
        "stage": st.sampled_from(["initrd", "system"]) | _WORDS,
        "boot": st.floats(0, 1000) | _NUMBERS,
        "step": st.sampled_from(["outcome", "fetch-key", "open", "wait-device"]) | _WORDS,
        "phase": st.sampled_from(log.PHASES) | st.text(),
    },
    optional={"volume": st.sampled_from(["", "root"]) | _WORDS, "seconds": _NUMBERS, "facts": _FACTS},
).map(lambda one: json.dumps(one).encode())
_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
).map(lambda one: json.dumps(one).encode())


@given(lines=st.lists(_LINES | _JSON | st.binary(max_size=40), max_size=12), cut=st.integers(0, 40))
def test_whatever_stands_in_the_log_there_is_a_report(lines: list[bytes], cut: int) -> None:
    data = b"\n".join(lines)
    records, damaged = eventlog.parse(data[: len(data) - cut])
    whole = report(records, {"kernel": 0.0, "pivot": 12.0})
    assert len(records) + len(damaged) <= data.count(b"\n") + 1
    for step in whole.steps:
        assert step.seconds >= 0
        assert all(step.at <= wait.at <= wait.at + wait.seconds <= step.end + 0.002 for wait in step.waits)
    assert all(one.isprintable() for one in boot_report.as_table(whole, 72))
    assert {one.volume for one in whole.volumes} >= {step.volume for step in whole.steps if step.volume}
    json.loads("\n".join(boot_report.as_json(whole)))
    assert words(whole)


def test_two_processes_of_a_stage_at_one_time_are_told_apart() -> None:
    """As when two disks are attached together."""
    lines = [
        {
            "stage": "system",
            "pid": pid,
            "boot": boot,
            "step": step,
            "phase": phase,
            "volume": volume,
            "seconds": seconds,
        }
        for boot, pid, step, phase, volume, seconds in (
            (1.0, 7, "start", "note", "", None),
            (1.1, 7, "open", "begin", "a", None),
            (1.2, 8, "start", "note", "", None),
            (1.3, 8, "open", "begin", "b", None),
            (1.6, 7, "open", "end", "a", 0.5),
            (1.9, 8, "open", "end", "b", 0.6),
        )
    ]
    records, damaged = eventlog.parse("\n".join(map(json.dumps, lines)).encode())
    assert damaged == []
    whole = report(records)
    assert [(step.volume, step.seconds, step.result) for step in whole.steps] == [
        ("a", 0.5, "ended"),
        ("b", 0.6, "ended"),
    ]
    assert whole.problems == ()
