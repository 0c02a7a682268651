"""The stand-in for a region's shared gateway: secrets for whoever has a role's temporary credentials.

In a test:

    with MetadataServer() as metadata, SharedGateway({"disk": "c2VjcmV0"}, metadata.grants, certificate) as gateway:
        ...  # ask gateway.endpoint
        gateway.behave("throttle", times=2)
        assert gateway.requests[-1].outcome == "Rejected.Throttling"

It misbehaves by the same names as the gateway of an instance (behaviours.py).
"""

from __future__ import annotations

import base64
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta

from tests.kms import acs3, behaviours, errors, protocol
from tests.kms.acs3 import Grant
from tests.kms.behaviours import HUGE, Behaviour, Reply, Switch
from tests.kms.errors import ErrorReply, Refused
from tests.kms.pki import ServerCertificate
from tests.kms.protocol import Call, Secret
from tests.kms.server import Recording, Request
from tests.kms.transport import HttpRequest, Listener


class SharedGateway(Recording):
    """A shared gateway, to be used as a context manager.

    secrets: those of the account that grants are of by default. others: those of acs3.OTHER_ACCOUNT. grants: the
    credentials that were given out, by access key ID; looked at for each request. switch, on_request, look_up: as for
    KmsServer.
    """

    def __init__(
        self,
        secrets: Mapping[str, Secret],
        grants: Mapping[str, Grant],
        certificate: ServerCertificate,
        *,
        address: tuple[str, int] = ("127.0.0.1", 0),
        switch: Switch | None = None,
        max_skew: timedelta = protocol.MAX_SKEW,
        on_request: Callable[[Request], None] | None = None,
        look_up: Callable[[], Mapping[str, Secret]] | None = None,
        others: Mapping[str, Secret] | None = None,
        region: str = "cn-hangzhou",
    ) -> None:
        self.secrets = dict(secrets)
        self._grants = grants
        self._nonces: set[str] = set()
        self._switch = switch or Switch()
        self._max_skew = max_skew
        self._look_up = look_up or (lambda: self.secrets)
        self._others = others or {}
        self._region = region
        super().__init__(
            Listener(address, certificate, answer=self.answer, note_failed_handshake=self._note_failed_handshake),
            on_request,
        )

    def behave(self, name: str, *, times: int | None = None, seconds: float | None = None) -> None:
        """Choose how requests are treated from now on; the parameters are those of Behaviour."""
        self._switch.set(Behaviour(name=name, times=times, seconds=seconds))

    def answer(self, request: HttpRequest) -> Reply:
        """Judge a request, record it, and say what to answer."""
        arrived = time.time()
        secret = stage = ""
        host = request.headers.get("host", "")
        try:
            nonce = acs3.verify(
                request.method, request.target, request.headers, request.body, self._grants, max_skew=self._max_skew
            )
            self._require_new(nonce)
            call = acs3.parse_request(request.target, request.body)
            secret, stage = call.secret_name, call.stage
            reply = self._treat(call, host, acs3.granted(request.headers, self._grants))
        except Refused as refused:
            # Whatever the behaviour: a client that signs wrongly must not pass for one that is being throttled.
            reply = _error_reply(refused.reply, host)
        action = request.headers.get("x-acs-action", "")
        self._record(Request(arrived, request.remote, action, secret, stage, reply.status, reply.outcome, host))
        return reply

    def _require_new(self, nonce: str) -> None:
        if nonce in self._nonces:
            raise Refused(acs3.NONCE_USED)
        self._nonces.add(nonce)

    def _treat(self, call: Call, host: str, grant: Grant) -> Reply:
        """Answer a valid request as the behaviour of the moment has it."""
        try:
            behaviour = self._switch.next(call.secret_name)
        except (ValueError, TypeError) as error:
            print(f"the behaviour file cannot be used: {error}", file=sys.stderr)
            return _error_reply(errors.INTERNAL_FAILURE, host)
        if behaviour.name in _ERRORS:
            return _error_reply(_ERRORS[behaviour.name](call), host)
        if behaviour.name in behaviours.ERRORS:
            return _error_reply(behaviours.ERRORS[behaviour.name], host)
        honest = self._honest_answer(call, grant)
        if behaviour.name in _ANSWERS:
            return replace(honest, outcome=behaviour.name, status=200, body=_ANSWERS[behaviour.name](call))
        if behaviour.name == "huge-body":
            return replace(honest, outcome=behaviour.name, body=b" ", padding=HUGE)
        return behaviours.BEHAVIOURS[behaviour.name](behaviour, call, honest)

    def _honest_answer(self, call: Call, grant: Grant) -> Reply:
        account, name = acs3.find_secret(call.secret_name, grant, self._region)
        call = replace(call, secret_name=name)
        secrets = self._look_up() if account == acs3.ACCOUNT else self._others
        value = protocol.find_value(call, secrets)
        version_id = secrets[name].version_id(call.stage)
        return _reply("ok", acs3.write_response(call, value, version_id=version_id))


def _reply(outcome: str, body: bytes, status: int = 200) -> Reply:
    return Reply(outcome=outcome, status=status, body=body, content_type=acs3.JSON)


def _error_reply(error: ErrorReply, host: str) -> Reply:
    return _reply(error.code, acs3.write_error(error, host), error.status)


def _no_permission(call: Call) -> ErrorReply:
    return errors.no_permission(f"acs:kms:cn-hangzhou:1234567890:secret/{call.secret_name}")


def _random_value(call: Call) -> bytes:
    return acs3.write_response(call, base64.b64encode(os.urandom(256)).decode())


# Behaviours that are an error of this wire's own, and those that are another body; the rest is the same for each wire.
_ERRORS: Mapping[str, Callable[[Call], ErrorReply]] = {
    "refuse": _no_permission,
    "wrong-signature-key": lambda _: acs3.signature_does_not_match("x-acs-security-token:CAIS"),
}
_ANSWERS: Mapping[str, Callable[[Call], bytes]] = {
    "wrong-secret": _random_value,
    "not-base64": lambda call: acs3.write_response(call, "correct horse, battery staple!"),
    "empty-secret": lambda call: acs3.write_response(call, ""),
    "broken-body": lambda _: b"<html>" + b"\xff" * 64,
}
