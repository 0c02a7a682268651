"""QR codes, drawn with characters.

Uses: qrencode.
"""

from __future__ import annotations

from cryptpilot_boot.system.run import run


def draw(text: memoryview, *, colored: bool) -> list[str]:
    """Return the lines of a QR code; colored: with its own background, whatever that of the terminal.

    Raises ProgramError, as when there is no qrencode.
    """
    kind = "ANSIUTF8" if colored else "UTF8"
    _, drawn = run(["qrencode", f"--type={kind}", "--output=-"], stdin=text)
    return drawn.splitlines()
