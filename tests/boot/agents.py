"""Has systemd's own programs ask on a terminal, and prints what came of it as JSON; run as a program.

argv: the program that shows questions, and its options, of which "TTY" becomes the terminal's name.
"""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from cryptpilot_boot.system import init, person

QUESTIONS = Path("/run/systemd/ask-password")
PATIENCE = 60.0
TYPED = "what nobody may see"


class Terminal:
    """A terminal with somebody in front of it. seen: what stands on it."""

    def __init__(self) -> None:
        self.master, slave = pty.openpty()
        self.name = os.ttyname(slave)
        self.seen = ""

    def read(self, until: str = "", seconds: float = PATIENCE) -> None:
        """Read until something stands there, or for so many seconds."""
        end = time.monotonic() + seconds
        while not (until and until in self.seen) and time.monotonic() < end:
            if select.select([self.master], [], [], 0.1)[0]:
                self.seen += os.read(self.master, 4096).decode(errors="replace")


def ask(question: str, answers: list[str | None], dismissal: person.Dismissal) -> threading.Thread:
    """Ask on a thread of its own."""

    def work() -> None:
        answer = person.ask(question, "cryptpilot:root", dismissal)
        answers.append(None if answer is None else bytes(answer.reveal()).decode())

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def main() -> None:
    """Answer one question, and take another back."""
    init.runs_systemd = lambda: True
    terminal = Terminal()
    words = [word.replace("TTY", terminal.name) for word in sys.argv[1:]]
    answers: list[str | None] = []
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as agent:
        dismissal = person.Dismissal()
        first = ask("The first question", answers, dismissal)
        terminal.read("The first question")
        terminal.read(seconds=2)  # it asks, and only then has the terminal not show what is typed
        os.write(terminal.master, f"{TYPED}\r".encode())
        first.join(PATIENCE)
        second = ask("The second question", answers, dismissal)
        terminal.read("The second question")
        standing = len(list(QUESTIONS.iterdir()))
        dismissal.dismiss()
        second.join(PATIENCE)
        terminal.read(seconds=1)
        agent.send_signal(signal.SIGTERM)
    left = len(list(QUESTIONS.iterdir()))
    print(json.dumps({"answers": answers, "standing": standing, "left": left, "seen": terminal.seen}))


if __name__ == "__main__":
    main()
