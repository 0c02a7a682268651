"""Whom a request for a secret goes to, as sentences about it need it."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Gateway:
    """Who was asked for what, and what a person can do when it did not work.

    address: "host" or "host:port". secret: its name; stage: which of its values. The others are hints: certificate:
    when its certificate is refused; name: when its name cannot be resolved; connection: when there is no connection, or
    no answer; answer: when the answer makes no sense. codes: by a part of the gateway's error code, in place of those
    that every gateway has.
    """

    address: str
    secret: str
    stage: str
    certificate: str
    name: str
    connection: str
    answer: str
    codes: tuple[tuple[str, str], ...] = ()
    name_of_service: str = "KMS"
