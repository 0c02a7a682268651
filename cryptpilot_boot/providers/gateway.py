"""The service that is asked for a secret, as errors about it need it."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Gateway:
    """The service that is asked, the secret, and hints for what may fail.

    address: "host" or "host:port". secret: its name. stage: which of its values. Hints: certificate: it is refused.
    name: it cannot be resolved. connection: there is no connection, or no answer. answer: it is not understood. codes:
    by a part of the gateway's error code, in place of the hints for every gateway.
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
