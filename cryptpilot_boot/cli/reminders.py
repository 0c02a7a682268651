"""Warnings at the end of commands that change or check what an image holds too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptpilot_boot.cli import terminal

if TYPE_CHECKING:
    from cryptpilot_boot.config import Config


def of_stale_images(config: Config) -> None:
    """Warn of images that were made from another configuration."""
    from cryptpilot_boot.commands import image_check

    for warning in image_check.stale(config):
        terminal.warn(warning)


def of_late_volumes(config: Config) -> None:
    """Warn of volumes that no image opens."""
    from cryptpilot_boot.commands import image_check

    for warning in image_check.late_warnings(config):
        terminal.warn(warning)
