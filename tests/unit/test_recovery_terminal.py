"""Recovery keys on a terminal: drawn, asked for, and not shown as they are typed."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from cryptpilot_boot.cli import keys, questions, terminal
from cryptpilot_boot.cli import main as cli
from cryptpilot_boot.errors import ProgramError
from cryptpilot_boot.keys import recovery
from cryptpilot_boot.system import programs, qrcode

CHECKOUT = Path(__file__).resolve().parents[2]
ASK = """
from cryptpilot_boot.cli import keys, main
from cryptpilot_boot.errors import CryptpilotError
main.heed_signals()
try:
    with keys.ask("a") as key:
        print("taken:", len(key), flush=True)
except CryptpilotError as error:
    print("refused:", error.what, flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def _take_terminal() -> None:
    """Begin a session of one's own, whose terminal is the one on standard input."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Asked:
    """A process that asks for a recovery key on a terminal of its own."""

    def __init__(self) -> None:
        self.terminal, theirs = pty.openpty()
        self.screen = ""
        self.process = subprocess.Popen(
            [sys.executable, "-c", ASK],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=CHECKOUT,
            preexec_fn=_take_terminal,
        )
        os.close(theirs)

    def see(self, pattern: str) -> None:
        """Wait until something stands on the screen, for a minute at most."""
        deadline = time.monotonic() + 60
        while not re.search(pattern, self.screen):
            assert select.select([self.terminal], [], [], deadline - time.monotonic())[0], self.screen
            self.screen += os.read(self.terminal, 4096).decode()

    def type(self, text: str) -> None:
        os.write(self.terminal, text.encode())

    @property
    def echoes(self) -> bool:
        return bool(termios.tcgetattr(self.terminal)[3] & termios.ECHO)


PROMPT = r"Recovery key of a \(it is not shown as you type\): $"


def test_a_key_is_asked_for_until_it_is_one_and_never_shown() -> None:
    with recovery.generate() as key:
        text = bytes(key.reveal()).decode()
    slip = text[:-20] + "x" + text[-19:]
    asked = Asked()
    asked.see(PROMPT)
    assert not asked.echoes
    asked.type(slip + "\n")
    asked.see(r"mistyped: look at group 7\r\n[^$]*" + PROMPT)
    asked.type(text + "\n")
    asked.see(r"taken: 80\r\n")
    assert asked.process.wait(60) == 0
    assert asked.echoes
    assert not any(group in asked.screen for group in text.split("-"))


@pytest.mark.parametrize(("typed", "outcome"), [("\n", "refused: nothing was typed"), ("cccc\x03", "interrupted")])
def test_the_terminal_shows_what_is_typed_again_when_no_key_is(typed: str, outcome: str) -> None:
    asked = Asked()
    asked.see(PROMPT)
    asked.type(typed)
    asked.see(outcome)
    asked.process.wait(60)
    assert asked.echoes


def test_of_standard_input_one_line_is_read_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.pipe()
    os.write(theirs, b"one line\nanother")
    with open(ours) as stdin:  # noqa: PTH123
        monkeypatch.setattr(sys, "stdin", stdin)
        assert questions.read_secret_line("not shown") == b"one line"
        assert os.read(ours, 100) == b"another"
    os.close(theirs)


def modules(lines: list[str]) -> list[str]:
    """Return the dark and light squares of a QR code, of which each character shows two, one above the other."""
    halves = {" ": "##", "\N{FULL BLOCK}": "  ", "\N{UPPER HALF BLOCK}": " #", "\N{LOWER HALF BLOCK}": "# "}
    rows = ["".join(halves[char][half] for char in line) for line in lines for half in (0, 1)]
    return [row.strip() for row in rows if row.strip()]


@pytest.mark.needs("qrencode")
def test_the_qr_code_is_of_the_key_and_nothing_else() -> None:
    with recovery.generate() as key:
        drawn = qrcode.draw(key.reveal(), colored=False)
        reference = subprocess.run(
            ["qrencode", "--type=ASCII", "--output=-", bytes(key.reveal()).decode()],
            capture_output=True,
            text=True,
            check=True,
        )
        wanted = [line[::2].strip() for line in reference.stdout.splitlines() if line.strip()]
        assert modules(drawn) == wanted
        assert len(wanted) == len(wanted[0])
        # a terminal's 24 lines
        assert len(drawn) < 24
        assert "\x1b[" in "".join(qrcode.draw(key.reveal(), colored=True))


def test_without_qrencode_the_key_is_there_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(programs, "PATH", "/nowhere")
    monkeypatch.setattr(terminal, "is_shown", lambda: True)
    with recovery.generate() as key:
        text = bytes(key.reveal()).decode()
        with pytest.raises(ProgramError):
            qrcode.draw(key.reveal(), colored=False)
        keys.show(key)
    said = capsys.readouterr()
    assert said.out == f"{text}\n"
    assert "no QR code of it: qrencode: program not found" in said.err
    assert "install qrencode" in said.err
    assert text not in said.err


@pytest.mark.needs("qrencode")
def test_it_is_drawn_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with recovery.generate() as key:
        keys.show(key)
        plain = capsys.readouterr().out
        monkeypatch.setattr(terminal, "is_shown", lambda: True)
        keys.show(key)
        drawn = capsys.readouterr().out
    assert plain.count("\n") == 1
    assert drawn.startswith(plain)
    assert len(modules(drawn.splitlines()[1:])) > 20


def _speak(encoding: str, code: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run code in an interpreter whose streams have an encoding, strict as by PYTHONIOENCODING."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONIOENCODING": f"{encoding}:strict"},
        cwd=CHECKOUT,
        capture_output=True,
        check=False,
    )


SHOW = """
from cryptpilot_boot.cli import keys, terminal
from cryptpilot_boot.keys import recovery
terminal.require_streams()
terminal.is_shown = lambda: True
with recovery.generate() as key:
    keys.show(key)
"""


@pytest.mark.needs("qrencode")
@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "koi8-r", "cp437"])
def test_a_terminal_without_the_characters_of_a_code_fails_nothing(encoding: str) -> None:
    """What comes after it, as the removal of the key that is replaced, has to be done."""
    done = _speak(encoding, SHOW)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert re.fullmatch(rb"([a-z]{8}-){8}[a-z]{8}", lines[0])
    assert b"write it down" in done.stderr
    if encoding in ("koi8-r", "cp437"):  # which have the blocks
        assert len(modules([line.decode(encoding) for line in lines[1:]])) > 20
    else:
        assert len(lines) == 1, "escaped, it would push the key off the screen"
        assert b"no QR code of it: the encoding of the terminal, " in done.stderr


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_what_an_encoding_lacks_is_escaped_on_both_streams(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "volumes").mkdir()
    for name in ("a", "b"):
        keys = "" if name == "a" else "\nwrong = 1"
        text = f'volume = "{name}"\ndev = "/dev/\u76d8{name}"{keys}\n[encrypt.otp]\n'
        file = tmp_path / f"volumes/\u5377{name}.toml" if name == "b" else tmp_path / "volumes/a.toml"
        file.write_text(text, encoding="utf-8")
        file.chmod(0o600)
    main = "import sys; from cryptpilot_boot.cli.main import main; sys.exit(main())"
    done = _speak(encoding, main, "-c", str(tmp_path), "show")
    assert done.returncode == cli.EXIT_USAGE, "for the wrong file alone"
    assert rb"/dev/\u76d8a" in done.stdout
    assert b"internal error" not in done.stderr
    assert b"wrong" in done.stderr


def test_only_one_volume_has_a_recovery_key_to_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["open", "a", "b", "--recovery-key"])
    assert caught.value.code == cli.EXIT_USAGE
    assert "--recovery-key is of one volume" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stream", "reason"),
    [(">&-", "it is closed"), ("1< /dev/null", "Bad file descriptor")],
    ids=["closed", "read-only"],
)
@pytest.mark.parametrize(
    "command", ["recovery-key root", "convert in out --volume root --recovery-key"], ids=lambda words: words.split()[0]
)
def test_no_key_is_made_that_could_not_be_printed(tmp_path: Path, command: str, stream: str, reason: str) -> None:
    """A stream that was closed is /dev/null later, which takes everything."""
    product = [sys.executable, "-m", "cryptpilot_boot", "--config-dir", str(tmp_path)]
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {stream}', "sh", *product, *command.split()],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    said = f"standard output cannot be written, where the recovery key would be printed: {reason}"
    assert (done.returncode, done.stderr.splitlines()[0]) == (1, f"cryptpilot: error: {said}")
