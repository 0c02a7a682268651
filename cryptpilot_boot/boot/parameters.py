"""The kernel parameters for a boot stage; see docs/kernel-parameters.md. Pure.

A parameter that is invalid is reported and ignored: a typing error at the boot loader must not stop a boot.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Callable

from cryptpilot_boot.system.kernel_parameters import NO, YES, values, words

if TYPE_CHECKING:
    from collections.abc import Sequence

_LONGEST = 3600  # seconds, as in the configuration
_MOST_COMPLAINTS = 10
# What the console may quote from the command line.
_SHOWN = re.compile(r"[A-Za-z0-9_.:/+-]{1,64}")


@dataclasses.dataclass(frozen=True)
class Parameters:
    """What the parameters set. None or an empty tuple: the configuration holds."""

    on: bool = True
    verbose: bool | None = None
    ask: bool | None = None
    timeout: int | None = None
    late_after: int | None = None
    volumes: tuple[str, ...] = ()
    complaints: tuple[str, ...] = ()


def parse(command_line: str, *, initrd: bool) -> Parameters:
    """Return the parameters of a stage.

    `cryptpilot.*` is for both stages. `rd.cryptpilot.*` is for the initrd alone, and overrides the other there. Of
    several words with one name the last one counts; `volume` may be repeated.
    """
    values: dict[str, object] = {}
    volumes: dict[str, list[str]] = {}
    complaints = []
    for prefix in ("cryptpilot", "rd.cryptpilot") if initrd else ("cryptpilot",):
        for word in words(command_line):
            name, _, text = word.partition("=")
            if name != prefix and not name.startswith(f"{prefix}."):
                continue
            key = name[len(prefix) + 1 :]
            if key == "volume" and text:
                volumes.setdefault(prefix, []).append(text)
            elif key in _KINDS:
                try:
                    values[key] = _KINDS[key](text)
                except ValueError as error:
                    complaints.append(f"kernel parameter {shown(name)}={shown(text) if text else ''} {error}")
            else:
                complaints.append(f"kernel parameter {shown(name)} is unknown")
    named = volumes.get("rd.cryptpilot") or volumes.get("cryptpilot") or []
    return Parameters(on=values.pop("", True), **values, volumes=tuple(named), complaints=tuple(complaints))  # type: ignore[arg-type]


def shown(text: str) -> str:
    """Return a part of the command line for the console: short plain text unchanged, anything else as "(...)"."""
    return text if _SHOWN.fullmatch(text) else "(...)"


def bounded(complaints: Sequence[str]) -> tuple[str, ...]:
    """Return the first ten complaints, and the number of the others in place of them."""
    more = len(complaints) - _MOST_COMPLAINTS
    last = (f"kernel parameters: {more} more are invalid",) if more > 0 else ()
    return (*complaints[:_MOST_COMPLAINTS], *last)


def asks_for_shell(command_line: str, *, default: bool) -> bool:
    """Tell whether a boot that cannot continue gives a shell. cryptpilot-no-shell.sh decides it in the same way.

    default: whether it does if no parameter says so.
    """
    said = values(command_line)
    return "rd.break" in said or (said["rd.shell"] in ("", *YES) if "rd.shell" in said else default)


def _boolean(text: str) -> bool:
    if text.lower() in (*YES, ""):
        return True
    if text.lower() in NO:
        return False
    raise ValueError("must be yes or no")


def _seconds(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if re.fullmatch("[0-9]{1,4}", text) and least <= int(text) <= _LONGEST:
            return int(text)
        raise ValueError(f"must be a number of seconds between {least} and {_LONGEST}")

    return parse


_KINDS: dict[str, Callable[[str], object]] = {
    "": _boolean,
    "verbose": _boolean,
    "ask": _boolean,
    "timeout": _seconds(1),
    "late_after": _seconds(0),
}
