"""What the file of a command says of it; see `table`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Callable, NamedTuple

if TYPE_CHECKING:
    import argparse

    from cryptpilot_boot.config import Config


def _nothing(_: argparse.ArgumentParser) -> None:
    return


class Example(NamedTuple):
    """A useful command line, and its purpose: a whole sentence."""

    line: str
    purpose: str


@dataclasses.dataclass(frozen=True)
class Verb:
    """A command.

    run: does it; True when all went well. It imports what it needs when it is called: to start is most of what opening
    a volume takes, and an import that fails is then reported as any other error. add_arguments: adds what the command
    takes to its parser. description: what its `--help` says beyond a line. usage: replaces the usage that argparse
    writes. check: refuses arguments that do not go together, by the parser in them, and completes them. examples: the
    last part of `--help`.
    """

    run: Callable[[Config, argparse.Namespace], bool]
    add_arguments: Callable[[argparse.ArgumentParser], None] = _nothing
    description: str | None = None
    usage: str | None = None
    check: Callable[[argparse.Namespace], None] | None = None
    examples: tuple[Example, ...] = ()
