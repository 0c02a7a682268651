"""Recovery keys: random keys in a form that a person can type, with checks that locate mistakes.

256 random bits are 8 groups of 8 letters. Letter N of the ninth group checks group N. The letters are modhex, as in
recovery keys of systemd-cryptenroll: they stand for 0 to 15, and have the same place on most keyboards.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.passphrase import Passphrase

if TYPE_CHECKING:
    from collections.abc import Sequence

_LETTERS = b"cbdefghijklnrtuv"
_LENGTH = 8  # letters in a group
_GROUPS = 8  # without the one that checks them
_ALL = (_GROUPS + 1) * _LENGTH
_KEY_BYTES = _GROUPS * _LENGTH // 2
_LIKE = range(_ALL - _LENGTH, _ALL + _LENGTH + 1)  # letters, where a group may be missing or was typed twice
_MOST_FOREIGN = 1 / 4  # of them, in what was meant for a recovery key

# The powers of 2 in the field of 16 elements, modulo x^4 + x + 1; and the exponent of each element.
_POWERS = (1, 2, 4, 8, 3, 6, 12, 11, 5, 10, 7, 14, 15, 13, 9)
_LOGARITHMS = {element: power for power, element in enumerate(_POWERS)}


def generate() -> Passphrase:
    """Make a recovery key. The passphrase is its text, with dashes: other programs take it as it is written."""
    key = bytearray(os.urandom(_KEY_BYTES))
    values = bytearray(value for byte in key for value in (byte >> 4, byte & 15))
    values += bytes(_check(place, values[place * _LENGTH :][:_LENGTH]) for place in range(_GROUPS))
    return _written(values)


def parse(typed: bytes | bytearray | memoryview) -> Passphrase:
    """Return the recovery key that was typed, in upper or lower case, with any separators or none.

    Raises CryptpilotError that names the groups with mistakes, and quotes nothing.
    """
    letters, runs = _letters(typed)
    if len(letters) == _ALL:
        runs = [_LENGTH] * (_GROUPS + 1)
    elif len(runs) != _GROUPS + 1:
        raise _mistyped(f"it has {len(letters)} letters rather than {_ALL}")
    groups = []
    for length in runs:
        groups.append(bytearray(_LETTERS.find(letter) & 0xFF for letter in letters[:length]))
        del letters[:length]
    wrong = [number for number, group in enumerate(groups) if len(group) != _LENGTH or max(group) >= len(_LETTERS)]
    if _GROUPS not in wrong:
        checks = groups[_GROUPS]
        wrong = [place for place in range(_GROUPS) if place in wrong or _check(place, groups[place]) != checks[place]]
    if wrong:
        raise _mistyped(_name(wrong))
    return _written(b"".join(groups))


def resembles(typed: bytes | bytearray | memoryview) -> bool:
    """Tell whether a person meant to type a recovery key, by its length and its letters; it may have mistakes."""
    letters, _ = _letters(typed)
    foreign = sum(letter not in _LETTERS for letter in letters)
    letters[:] = bytes(len(letters))
    return len(letters) in _LIKE and foreign <= _MOST_FOREIGN * len(letters)


def _check(place: int, group: Sequence[int]) -> int:
    """Return the value that checks a group. place: of the group, which changes the value.

    Each letter has a factor of its own. One wrong letter, or two that are swapped, are always found; other mistakes in
    15 of 16 cases.
    """
    total = 0
    for index, value in enumerate(group):
        if value:
            total ^= _POWERS[(_LOGARITHMS[value] + place + index) % len(_POWERS)]
    return total


def _letters(typed: bytes | bytearray | memoryview) -> tuple[bytearray, list[int]]:
    """Return the letters that were typed, in lower case and without separators, and the length of each group."""
    letters = bytearray()
    runs: list[int] = []
    apart = True
    for byte in bytearray(typed):
        if byte < 0x80 and chr(byte).isalnum():
            if apart:
                runs.append(0)
            runs[-1] += 1
            letters.append(byte | 0x20)
            apart = False
        else:
            apart = True
    return letters, runs


def _written(values: bytes | bytearray) -> Passphrase:
    text = bytearray()
    for place, value in enumerate(values):
        if place and place % _LENGTH == 0:
            text += b"-"
        text.append(_LETTERS[value])
    return Passphrase(text, strong=True)


def _name(wrong: Sequence[int]) -> str:
    names = ["the last group" if place == _GROUPS else f"group {place + 1}" for place in wrong]
    if len(names) == 1:
        return f"look at {names[0]}"
    return f"look at {', '.join(names[:-1])} and {names[-1]}"


def _mistyped(what: str) -> CryptpilotError:
    return CryptpilotError(
        f"the recovery key is mistyped: {what}",
        f"it is {_GROUPS + 1} groups of {_LENGTH} letters out of {_LETTERS.decode()}; letter N of the last group"
        " checks group N",
    )
