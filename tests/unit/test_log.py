"""Telling of steps: nobody who listens can make one fail."""

from __future__ import annotations

import errno

import pytest

from cryptpilot_boot import log


@pytest.mark.parametrize("broken_console", [False, True])
def test_a_sink_that_fails_is_dropped_after_one_complaint(*, broken_console: bool) -> None:
    tried: list[str] = []
    complaints: list[Exception] = []
    told: list[str] = []

    def fail(event: log.Event) -> None:
        tried.append(event.phase)
        raise OSError(errno.ENOSPC, "No space left on device")

    def complain(error: Exception) -> None:
        complaints.append(error)
        log.emit("complaint")  # who complains may have something to tell himself
        if broken_console:
            raise OSError(errno.EIO, "Input/output error")

    with (
        log.subscribed(fail, complain),
        log.subscribed(lambda event: told.append(event.phase)),
        log.timed("open", "data"),
    ):
        pass
    log.emit("after")
    assert tried == ["begin"]
    assert [log.reason(error) for error in complaints] == ["No space left on device"]
    assert told == ["begin", "note", *(["note"] if broken_console else []), "end"]
