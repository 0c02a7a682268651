"""Entry point of `python -m cryptpilot_boot` and of the frozen agent."""

import sys

from cryptpilot_boot.cli.main import main

sys.exit(main())
