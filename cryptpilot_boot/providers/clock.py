"""The clock of the gateway compared with this machine's, after one of them refused a time.

Certificates and signatures of requests have a time. With a clock that is years off, a machine gets no secret, and in an
initrd no service sets the clock. So the gateway is asked for its time, over TLS. Its certificate is verified except for
its dates; docs/kms.md says why that is enough.
"""

from __future__ import annotations

import dataclasses
import datetime
import http.client
import ssl
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Callable

from cryptpilot_boot import log
from cryptpilot_boot.errors import KeyFetchError
from cryptpilot_boot.providers import kms_errors, limit
from cryptpilot_boot.system import clock
from cryptpilot_boot.system.init import in_initrd

if TYPE_CHECKING:
    from cryptpilot_boot.providers.gateway import Gateway

# <openssl/x509_vfy.h>
_NO_CHECK_TIME = 0x200000
# The difference that a gateway accepts between its clock and that of a signature; see docs/kms.md.
_TOLERATED = datetime.timedelta(minutes=15)
_SET_IT = "set the clock of this machine: timedatectl, or chronyc makestep"


@dataclasses.dataclass(frozen=True)
class _Told:
    """The gateway's time, and the dates of the certificate with which it was told."""

    time: datetime.datetime
    begin: datetime.datetime
    end: datetime.datetime


def explain(error: Exception, gateway: Gateway, trust: Callable[[], ssl.SSLContext], timeout: float) -> KeyFetchError:
    """Explain an error of the SDK as `kms_errors.explain` does; if it is about the time, as `judge` does.

    trust: returns a TLS context that trusts the gateway's CAs. timeout: seconds.
    """
    # Any error of the SDK. Its text may quote the request, so only parts known to be harmless are used.
    failure = kms_errors.explain(error, gateway)
    if kms_errors.is_about_time(error):
        return judge(failure, gateway.address, trust(), min(timeout, limit.CONNECT_TIMEOUT))
    return failure


def judge(failure: KeyFetchError, address: str, context: ssl.SSLContext, timeout: float) -> KeyFetchError:
    """Return the failure with both times. In an initrd, set a wrong clock, and make the failure retryable.

    context: of TLS, with the trusted CAs; it is changed. timeout: seconds for asking.
    """
    ours = clock.now()
    try:
        told = _ask(address, context, timeout)
    except (OSError, http.client.HTTPException, KeyError, TypeError, ValueError, OverflowError) as error:
        # the first failure says more than this one
        what = f"{failure.what}; this machine's clock says {clock.text(ours)}"
        refused = isinstance(error, ssl.SSLCertVerificationError)
        return KeyFetchError(what, failure.hint, retryable=not (refused and in_initrd()))
    what = f"{failure.what}; this machine's clock says {clock.text(ours)}, and {address} says {clock.text(told.time)}"
    if abs(told.time - ours) <= _TOLERATED:
        # the clock may have been set a moment ago, for another volume or by a time service
        valid = told.begin <= told.time <= told.end
        hint = "both clocks agree: see how long the certificate is valid, and what delays requests on their way"
        return KeyFetchError(what, hint, retryable=valid)
    if not in_initrd():
        return KeyFetchError(what, _SET_IT, retryable=True)  # a time service may set it soon
    doubt, hint = _doubt(told)
    if doubt:
        return KeyFetchError(f"{what}, which is not believed: {doubt}", hint)
    try:
        clock.set_to(told.time)
    except OSError as error:
        return KeyFetchError(f"{what}; it cannot be set: {error.strerror}", _SET_IT)
    log.emit("clock", facts={"was": clock.text(ours), "set_to": clock.text(told.time), "by": address})
    return KeyFetchError(
        f"this machine's clock said {clock.text(ours)}, and was set to {clock.text(told.time)}, as {address} has it",
        _SET_IT,
        retryable=True,
    )


def _doubt(told: _Told) -> tuple[str, str]:
    """Return why the gateway's time cannot be right, and what to do; "" if it can."""
    made = clock.image_made()
    if made and told.time < made:
        # keys/floor.py has set this clock to that time already, so one of the three is wrong
        return (
            f"this image was made later ({clock.text(made)})",
            "if it was made with a clock that is ahead, rebuild it with a right one: cryptpilot initrd rebuild",
        )
    if not told.begin <= told.time <= told.end:
        return "its certificate is not valid at that time", "set the clock of this machine in its firmware"
    return "", ""


def _ask(address: str, context: ssl.SSLContext, timeout: float) -> _Told:
    """Ask for the time only. Raises what network, TLS, or an answer of another form may raise."""
    context.verify_flags |= ssl.VerifyFlags(_NO_CHECK_TIME)
    connection = http.client.HTTPSConnection(address, context=context, timeout=timeout)
    try:
        connection.connect()
        certificate: Any = connection.sock.getpeercert()
        connection.request("HEAD", "/")
        said = parsedate_to_datetime(connection.getresponse().headers["date"])
        begin, end = (
            datetime.datetime.fromtimestamp(ssl.cert_time_to_seconds(certificate[name]), datetime.timezone.utc)
            for name in ("notBefore", "notAfter")
        )
        return _Told(said.astimezone(datetime.timezone.utc), begin, end)
    finally:
        connection.close()
