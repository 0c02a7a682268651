"""What zsh offers for command lines, by a zsh on a terminal of its own. Uses: zsh."""

from __future__ import annotations

import os
import pty
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# All matches are inserted in place of the last word. What no match is found for stays.
_SETTINGS = """\
PS1=
fpath=({functions} $fpath)
autoload -Uz compinit
compinit -D -u
LISTMAX=-1
all() {{ _main_complete; compstate[insert]=all; compstate[list]= }}
zle -C all complete-word all
zle-line-init() {{
    local line
    for line in "${{(@f)$(<lines)}}"; do
        BUFFER=$line
        CURSOR=$#BUFFER
        zle all
        print -r -- "$BUFFER" >> offered
    done
    exit
}}
zle -N zle-line-init
"""


def offered(functions: Path, lines: Sequence[str], directory: Path, home: Path) -> dict[str, set[str]]:
    """Return the words that stand for the last word of each line. Runs in `directory`; `home` is empty, for zsh.

    functions: where completion functions are.
    """
    (home / ".zshrc").write_text(_SETTINGS.format(functions=functions))
    (directory / "lines").write_text("\n".join(lines))
    outside, inside = pty.openpty()
    try:
        environment = {**os.environ, "ZDOTDIR": str(home), "TERM": "dumb"}
        zsh = subprocess.Popen(
            ["zsh", "-d", "-i"], stdin=inside, stdout=inside, stderr=inside, cwd=directory, env=environment,
            start_new_session=True,
        )  # fmt: skip
        os.close(inside)
        said = b""
        try:
            while part := os.read(outside, 1 << 16):
                said += part
        except OSError:  # zsh has ended
            pass
        zsh.wait(60)
    finally:
        os.close(outside)
    found = (directory / "offered").read_text().splitlines() if (directory / "offered").exists() else []
    assert len(found) == len(lines), said.decode(errors="replace")
    return {
        line: set(now.removeprefix(line[: len(line) - len(line.split(" ")[-1])]).split())
        for line, now in zip(lines, found)
    }
