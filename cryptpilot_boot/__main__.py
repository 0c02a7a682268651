"""Entry point of `python -m cryptpilot_boot` and of the frozen agent."""

import sys

from cryptpilot_boot.cli import main

sys.exit(main())
