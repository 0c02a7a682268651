"""Entry point of `python -m cryptpilot_boot` and of the frozen agent."""

import gc

# A start makes many objects and little garbage. By default a twentieth of its time goes into looking for that.
gc.set_threshold(100_000)

from cryptpilot_boot.cli.main import run_and_exit  # noqa: E402

run_and_exit()
