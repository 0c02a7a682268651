"""The files by which processes and scripts of cryptpilot talk. docs/dev/architecture.md says what is in each."""

from __future__ import annotations

from pathlib import Path

RUN = Path("/run/cryptpilot")
"""In memory, and kept across the pivot."""
EVENTS = RUN / "events.jsonl"
LOCKS = RUN / "lock"
DEVICE_LOCKS = RUN / "lock-device"
OPENED = RUN / "opened"
OPENED_BY = RUN / "opened-by"
ROTATION_PENDING = RUN / "rotation-pending"
FAILED = RUN / "failed"
KBS = RUN / "kbs"
CONVERT = RUN / "convert"
LATE = RUN / "late"
OVER = RUN / "over"
MAY_STOP_BOOT = RUN / "may-stop-boot"
STOP_BOOT = RUN / "stop-boot"

BUNDLE = Path("/usr/libexec/cryptpilot")
"""The frozen agent, in the system and in an image."""
AGENT = BUNDLE / "cryptpilot"
MANIFEST = BUNDLE / "manifest.json"
IMAGE_RECORD = BUNDLE / "image.json"
SHUTDOWN_FILES = BUNDLE / "shutdown.files"

UNLESS_OURS = Path("/usr/libexec/cryptpilot-unless-ours")
"""The program that systemd-cryptsetup is made to ask; see units/passing_over.py."""
