"""Waiting for something to appear: no fixed sleeps, always a deadline.

The kernel and udev tell over netlink that a device or the network has changed; each word is a reason to look
again. See netlink(7), rtnetlink(7), and linux/Documentation "uevent".
"""

from __future__ import annotations

import ctypes
import os
import select
import time
from pathlib import Path
from typing import Callable, TypeVar

from cryptpilot_boot.system.network import NETWORKD_STATE

T = TypeVar("T")

# <linux/netlink.h>
_NETLINK_ROUTE = 0
_NETLINK_KOBJECT_UEVENT = 15
# Multicast groups: 1 is the kernel, 2 is udev once its rules ran and its links exist.
_UEVENT_GROUPS = 1 | 2
# <linux/rtnetlink.h>: RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE
_ROUTE_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
# <linux/inotify.h>
_IN_CLOSE_WRITE = 0x8
_IN_MOVED_TO = 0x80
_IN_CREATE = 0x100
# A check costs microseconds. It is made this often even without an event, because some changes announce themselves
# nowhere (a name server's address, a lost message).
_LOOK_ANYWAY = 1.0
_TELL_EVERY = 5.0


class Deadline:
    """A moment on the monotonic clock by which something has to be done."""

    def __init__(self, seconds: float) -> None:
        self.total = seconds
        self._start = time.monotonic()

    def passed(self) -> float:
        """Return the seconds since this was made, which may be more than there were."""
        return time.monotonic() - self._start

    def left(self) -> float:
        """Return the seconds left, never less than 0."""
        return max(0.0, self.total - self.passed())

    @property
    def over(self) -> bool:
        """Whether the moment has passed."""
        return self.left() == 0.0


class Changes:
    """Something to sleep on until the kernel says that what is watched may have changed.

    Subscribed to before the first look, it misses nothing between a look and the sleep after it.
    """

    def __init__(self, *sources: int, directory: Path | None = None) -> None:
        self._sources = list(sources)
        self._directory = directory
        self._inotify = _libc().inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC) if directory else -1
        if self._inotify >= 0:
            self._sources.append(self._inotify)

    def sleep(self, seconds: float) -> bool:
        """Sleep until something changes, at most `seconds`; tell whether it did."""
        self._watch_directory()
        ready, _, _ = select.select(self._sources, [], [], max(0.0, seconds))
        for source in ready:
            _drain(source)
        return bool(ready)

    def _watch_directory(self) -> None:
        """Watch the directory, or until it is there the one it will be in; see inotify(7). Again is no harm."""
        for path in (self._directory, self._directory.parent) if self._directory else ():
            if (
                _libc().inotify_add_watch(self._inotify, os.fsencode(path), _IN_CLOSE_WRITE | _IN_MOVED_TO | _IN_CREATE)
                >= 0
            ):
                return

    def __enter__(self) -> Changes:
        return self

    def __exit__(self, *_: object) -> None:
        for source in self._sources:
            os.close(source)


def device_changes() -> Changes:
    """Watch block devices coming and going."""
    return Changes(_netlink(_NETLINK_KOBJECT_UEVENT, _UEVENT_GROUPS))


def network_changes() -> Changes:
    """Watch links, addresses, routes and what systemd-networkd knows coming and going."""
    return Changes(_netlink(_NETLINK_ROUTE, _ROUTE_GROUPS), directory=NETWORKD_STATE.parent)


def _netlink(family: int, groups: int) -> int:
    import socket  # what is there at once is not waited for

    changes = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
    changes.setblocking(False)
    changes.bind((0, groups))
    return changes.detach()


def _drain(source: int) -> None:
    """Take all pending messages: that there are some is all they have to say."""
    while True:
        try:
            os.read(source, 65536)
        except OSError:
            return  # EAGAIN: that was the last one. ENOBUFS: some were lost, but a look follows in any case


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def wait_for(
    look: Callable[[], T | None],
    changes: Changes,
    deadline: Deadline,
    *,
    on_wait: Callable[[float], None] = lambda _: None,
) -> T | None:
    """Look until `look` returns something other than None, and return that; None at the deadline.

    `changes` must have been subscribed to before, so that nothing is missed between a look and the sleep after
    it. on_wait: called with the seconds left when the waiting begins, and every 5 s after.
    """
    told = None
    while True:
        found = look()
        if found is not None or deadline.over:
            return found
        left = deadline.left()
        if told is None or told - left >= _TELL_EVERY:
            told = left
            on_wait(left)
        changes.sleep(min(_LOOK_ANYWAY, left))
