"""The stand-in gateway: secrets, the client keys that may ask for them, and a record of who asked.

In a test:

    pki = make_pki()
    with KmsServer(pki, {"disk": "c2VjcmV0"}) as kms:
        ...  # ask kms.endpoint with pki.client_key and pki.authority.pem
        kms.behave("throttle", times=2)
        assert kms.requests[-1].outcome == "Rejected.Throttling"
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from tests.kms import errors, protocol
from tests.kms.behaviours import BEHAVIOURS, Behaviour, Reply, Switch, error_reply
from tests.kms.errors import Refused
from tests.kms.pki import Pki, ServerCertificate, make_server_certificate
from tests.kms.protocol import Secret
from tests.kms.transport import HttpRequest, Listener, Server


@dataclass(frozen=True)
class Request:
    """One request, as it was served. There is no field for a secret's value.

    `outcome` is "ok", an error's code, a behaviour's name, or "tls: ..." for a handshake that the client
    broke off.
    """

    time: float  # seconds since the epoch, when the request had come in
    remote: str  # address:port; one port is one connection
    api: str
    secret: str
    stage: str
    status: int  # HTTP status; 0: no answer
    outcome: str
    host: str = ""  # as the client calls it


class Recording(Server):
    """Keeps a record of each request.

    `on_request` is called with each record, from many threads, before the answer is sent.
    """

    def __init__(self, listener: Listener, on_request: Callable[[Request], None] | None) -> None:
        self.requests: list[Request] = []
        self._on_request = on_request
        super().__init__(listener)

    def _note_failed_handshake(self, remote: str, reason: str) -> None:
        self._record(Request(time.time(), remote, "", "", "", 0, f"tls: {reason}"))

    def _record(self, request: Request) -> None:
        self.requests.append(request)
        if self._on_request:
            self._on_request(request)


class KmsServer(Recording):
    """A gateway with secrets, to be used as a context manager.

    `certificate` replaces the server certificate made for localhost, `switch` says where the behaviour
    comes from, `on_request` is that of `Recording`. `look_up` says what secrets there are at each request, in place of
    `secrets`. `by_role` answers requests that are signed with a role's credentials, which a gateway of an instance
    takes on the wire of the shared one.
    """

    def __init__(
        self,
        pki: Pki,
        secrets: Mapping[str, str | Secret],
        *,
        certificate: ServerCertificate | None = None,
        address: tuple[str, int] = ("127.0.0.1", 0),
        switch: Switch | None = None,
        max_skew: timedelta = protocol.MAX_SKEW,
        on_request: Callable[[Request], None] | None = None,
        look_up: Callable[[], Mapping[str, Secret]] | None = None,
        by_role: Callable[[HttpRequest], Reply] | None = None,
    ) -> None:
        self._by_role = by_role
        self.secrets = {name: _as_secret(value) for name, value in secrets.items()}
        self._client_keys = {pki.client_key.key_id: pki.client_key.private_key().public_key()}
        self._switch = switch or Switch()
        self._max_skew = max_skew
        self._look_up = look_up or (lambda: self.secrets)
        super().__init__(
            Listener(
                address,
                certificate or make_server_certificate(pki.authority),
                answer=self._answer,
                note_failed_handshake=self._note_failed_handshake,
            ),
            on_request,
        )

    def behave(
        self,
        name: str,
        *,
        times: int | None = None,
        seconds: float | None = None,
        secret: str | None = None,
    ) -> None:
        """Choose how requests are treated from now on; the parameters are those of Behaviour."""
        self._switch.set(Behaviour(name=name, times=times, seconds=seconds, secret=secret))

    def rotate(self, name: str, value: str) -> None:
        """Give a secret a new current value; the old one becomes the previous one."""
        self.secrets[name] = Secret(current=value, previous=self.secrets[name].current)

    def _answer(self, request: HttpRequest) -> Reply:
        """Judge a request, record it, and say what to answer."""
        if self._by_role and "x-acs-action" in request.headers:
            return self._by_role(request)
        arrived = time.time()
        secret = stage = ""
        try:
            protocol.verify(request.headers, request.body, self._client_keys, max_skew=self._max_skew)
            call = protocol.parse_request(request.body)
            secret, stage = call.secret_name, call.stage
            reply = self._treat(call)
        except Refused as refused:
            # Whatever the behaviour: a client that signs wrongly must not pass for one that is being
            # throttled.
            reply = error_reply(refused.reply)
        api, host = request.headers.get("x-kms-apiname", ""), request.headers.get("host", "")
        self._record(Request(arrived, request.remote, api, secret, stage, reply.status, reply.outcome, host))
        return reply

    def _treat(self, call: protocol.Call) -> Reply:
        """Answer a valid request as the behaviour of the moment has it."""
        try:
            behaviour = self._switch.next(call.secret_name)
        except (ValueError, TypeError) as error:
            print(f"the behaviour file cannot be used: {error}", file=sys.stderr)
            return error_reply(errors.INTERNAL_FAILURE)
        return BEHAVIOURS[behaviour.name](behaviour, call, self._honest_answer(call))

    def _honest_answer(self, call: protocol.Call) -> Reply:
        secrets = self._look_up()
        try:
            value = protocol.find_value(call, secrets)
        except Refused as refused:
            return error_reply(refused.reply)
        version_id = secrets[call.secret_name].version_id(call.stage)
        return Reply(outcome="ok", body=protocol.write_response(call, value, version_id=version_id))


def _as_secret(value: str | Secret) -> Secret:
    return value if isinstance(value, Secret) else Secret(value)
