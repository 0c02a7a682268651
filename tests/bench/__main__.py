"""`make bench`: what the product costs. Figures, no judgement: nothing here is asserted.

`python -m tests.bench [QUESTION...]` measures the questions named, by default all of them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from tests.bench import boots, convert, image, integrity, several, start, storm, unlock
from tests.bench.workshop import Workshop
from tests.lab.run import mean_default_signals

QUESTIONS = {
    "image": image.measure,
    "start": start.measure,
    "boots": boots.measure,
    "unlock": unlock.measure,
    "several": several.measure,
    "integrity": integrity.measure,
    "convert": convert.measure,
    "storm": storm.measure,
}


def main() -> None:
    """Measure, and print a table for each question."""
    mean_default_signals()
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__.partition("\n")[0])
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help=f"{', '.join(QUESTIONS)} (default: all)")
    names = parser.parse_args().questions or list(QUESTIONS)
    if unknown := [name for name in names if name not in QUESTIONS]:
        parser.error(f"no such question: {', '.join(unknown)}; there are {', '.join(QUESTIONS)}")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="cryptpilot-bench-") as directory:
        shop = Workshop(Path(directory))
        for name in names:
            QUESTIONS[name](shop)
    print(f"\nAll of it took {(time.monotonic() - started) / 60:.1f} minutes.")


if __name__ == "__main__":
    main()
