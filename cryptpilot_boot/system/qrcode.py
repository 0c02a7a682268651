"""QR codes, drawn with characters.

Uses: qrencode, where it is installed.
"""

from __future__ import annotations

from cryptpilot_boot.system.run import is_there, run


def can_draw() -> bool:
    """Tell whether there is what draws them."""
    return is_there("qrencode")


def draw(text: memoryview, *, colored: bool) -> list[str]:
    """Return the lines of a QR code; colored: with a light ground of its own, on whatever ground the terminal has.

    Raises ProgramError.
    """
    kind = "ANSIUTF8" if colored else "UTF8"
    _, drawn = run(["qrencode", f"--type={kind}", "--output=-"], stdin=text)
    return drawn.splitlines()
