"""What the kernel command line may say to a boot stage."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryptpilot_boot.boot.parameters import Parameters, bounded, parse
from cryptpilot_boot.system.kernel_parameters import words


@pytest.mark.parametrize(
    ("command_line", "said"),
    [
        ("quiet root=/dev/vda1 ro", Parameters()),
        ("rd.cryptpilot=0", Parameters(on=False)),
        ("cryptpilot=no", Parameters(on=False)),
        ("cryptpilot=no rd.cryptpilot=yes", Parameters(on=True)),
        ("rd.cryptpilot=yes cryptpilot=no", Parameters(on=True)),
        ("rd.cryptpilot", Parameters()),
        ("rd.cryptpilot.verbose", Parameters(verbose=True)),
        ("rd.cryptpilot.verbose=off rd.cryptpilot.verbose=on", Parameters(verbose=True)),
        ("cryptpilot.timeout=20 rd.cryptpilot.timeout=300", Parameters(timeout=300)),
        ("rd.cryptpilot.late_after=0", Parameters(late_after=0)),
        ("cryptpilot.ask=no rd.cryptpilot.ask", Parameters(ask=True)),
        ("cryptpilot.ask=no", Parameters(ask=False)),
        ("rd.cryptpilot.volume=a rd.cryptpilot.volume=b", Parameters(volumes=("a", "b"))),
        ("cryptpilot.volume=c rd.cryptpilot.volume=a", Parameters(volumes=("a",))),
        ('rd.cryptpilot.volume="a"', Parameters(volumes=("a",))),
        ("rd.cryptpiloted=0 xcryptpilot=0", Parameters()),
    ],
)
def test_what_is_said_to_the_initrd(command_line: str, said: Parameters) -> None:
    assert parse(command_line, initrd=True) == said


def test_what_begins_with_rd_is_for_the_initrd_alone() -> None:
    line = "rd.cryptpilot=0 rd.cryptpilot.timeout=5 rd.cryptpilot.volume=a cryptpilot.timeout=7"
    assert parse(line, initrd=False) == Parameters(timeout=7)


@pytest.mark.parametrize(
    ("word", "complaint"),
    [
        ("rd.cryptpilot=maybe", "must be yes or no"),
        ("rd.cryptpilot.timeout=0", "must be a number of seconds between 1 and 3600"),
        ("rd.cryptpilot.timeout=1e9", "must be a number of seconds between 1 and 3600"),
        ("rd.cryptpilot.timeout", "must be a number of seconds between 1 and 3600"),
        ("rd.cryptpilot.late_after=-1", "must be a number of seconds between 0 and 3600"),
        ("rd.cryptpilot.volume=", "is unknown"),
        ("cryptpilot.timeuot=3", "is unknown"),
    ],
)
def test_a_slip_is_told_and_passed_over(word: str, complaint: str) -> None:
    said = parse(f"{word} rd.cryptpilot.verbose=1", initrd=True)
    assert len(said.complaints) == 1
    assert complaint in said.complaints[0]
    assert said == Parameters(verbose=True, complaints=said.complaints)


@pytest.mark.parametrize("text", ["\x1b]0;title\x07", "\x1b[2J", 65 * "a", "é", "a b", "\u202e"])
def test_what_is_no_plain_word_is_not_repeated(text: str) -> None:
    for word in (f'cryptpilot.timeout="{text}"', f'cryptpilot.{text}="1"', f'cryptpilot="{text}"'):
        (complaint, *more) = parse(word, initrd=False).complaints
        assert text not in complaint
        assert all(
            re.fullmatch(r"kernel parameter [\w.=()]+ (is|must be) [a-z0-9 ]+", one) for one in (complaint, *more)
        )


def test_complaints_are_few() -> None:
    said = bounded([f"complaint {number}" for number in range(1000)])
    assert said[:10] == tuple(f"complaint {number}" for number in range(10))
    assert said[10:] == ("kernel parameters: 990 more are invalid",)
    assert bounded(["one"]) == ("one",)


def test_words_may_be_quoted_as_for_the_kernel() -> None:
    assert words('a="b c" "d=e f" g\n') == ["a=b c", "d=e f", "g"]


@given(st.text())
def test_no_command_line_is_too_strange(text: str) -> None:
    assert isinstance(parse(text, initrd=True), Parameters)
