"""Entry point of `python -m cryptpilot_boot` and of the frozen agent."""

from cryptpilot_boot.cli.main import run_and_exit

run_and_exit()
