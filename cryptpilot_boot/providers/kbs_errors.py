"""Errors of the guest components, as sentences.

Their output is never quoted, since it contains data from the network. It is searched for the words of their own errors,
and the sentences are ours.

Source of the words: confidential-containers/guest-components, attestation-agent/kbs_protocol (error.rs,
client/rcar_client.rs) and confidential-data-hub (hub/src/error.rs, hub/src/bin/cdh-oneshot.rs);
confidential-containers/trustee, kbs/src/error.rs.
"""

from __future__ import annotations

import dataclasses

from cryptpilot_boot.errors import KeyFetchError
from cryptpilot_boot.providers import ttrpc
from cryptpilot_boot.providers.kbs import AGENT_UNIT, DAEMON_UNIT


@dataclasses.dataclass(frozen=True)
class Resource:
    """The resource and the service that was asked. kbs: "the KBS at ...", as it is in a sentence."""

    key_uri: str
    kbs: str


@dataclasses.dataclass(frozen=True)
class _Cause:
    """An error that one of these words identifies. what: "{uri}" and "{kbs}" are replaced."""

    words: tuple[str, ...]
    what: str
    hint: str
    retryable: bool = False
    unreachable: bool = False


_SEE = "see docs/kbs.md, Troubleshooting"
_AGENT = f"systemctl status {AGENT_UNIT}; {_SEE}"
# The first match counts. An error is printed with all its causes, so words of inner causes stand first.
_CAUSES = (
    _Cause(
        ("PolicyDeny", "Access denied by policy"),
        "{kbs} accepts this machine's evidence, and its policy does not give out {uri}",
        "see the KBS's resource policy, and what this machine has measured against the reference values",
    ),
    _Cause(
        ("Protocol Version Mismatch", "ProtocolVersion"),
        "{kbs} speaks another version of its protocol than this machine's guest components",
        "install guest components and a KBS of releases that fit each other",
    ),
    _Cause(
        ("KBS attest unauthorized", "AttestationError", "AttestationServiceError", "VerifyTokenFailed"),
        "{kbs} does not accept this machine's evidence",
        "compare what this machine has measured (kernel, initrd, command line) with the KBS's reference values: a"
        " rebuilt image has new ones; see the KBS's log",
    ),
    _Cause(
        ("ResourceNotFound", "KBS resource Not Found", "Error 404", "PluginNotFound", "InvalidRequestPath"),
        "{kbs} has no resource {uri}",
        "check key_uri, and that the resource was stored",
    ),
    _Cause(
        ("get evidence failed", "GetEvidence", "get composite evidence failed", "get tee type failed", "GetTeeType"),
        "this machine gave no evidence for {kbs}",
        "see that it is a confidential machine and that its driver is loaded (/dev/tdx_guest, /dev/sev-guest); "
        + _AGENT,
        retryable=True,
    ),
    _Cause(
        ("Attestation Agent token provider", "AATokenProvider", "attestation-agent.sock", "create AA"),
        "the attestation agent, which proves to {kbs} what this machine runs, does not answer",
        _AGENT,
        retryable=True,
    ),
    _Cause(
        ("certificate", "CertificateRequired", "UnknownIssuer"),
        "the certificate of {kbs} is refused",
        "kbs_root_cert must be the CA of the KBS; without it the system's CAs are trusted",
    ),
    _Cause(
        ("dns error", "failed to lookup address"),
        "{kbs} cannot be found: no name server knows it",
        "check kbs_url, and that the machine gets an address and a name server",
        retryable=True,
        unreachable=True,
    ),
    _Cause(
        ("error sending request", "HttpError", "http request failed", "Connection refused", "timed out"),
        "{kbs} does not answer",
        "check kbs_url and its port, that the KBS runs, and the firewalls on the way",
        retryable=True,
        unreachable=True,
    ),
    _Cause(
        ("KBS Server Internal Failed", "KbsInternalError", "KBS internal error"),
        "{kbs} has an internal error",
        "see the KBS's log",
        retryable=True,
    ),
    _Cause(
        ("decrypt KBS response", "DecryptResponseFailed", "KbsResponseDeserialization", "deserialize http response"),
        "{kbs} gives an answer that the guest components cannot read",
        "check that kbs_url is that of a KBS, and that no proxy stands between",
        retryable=True,
    ),
    _Cause(
        ("KBS request unauthorized", "request unautorized", "UnAuthorized", "RCAR handshake failed"),
        "{kbs} refuses this machine",
        "see the KBS's log",
        retryable=True,
    ),
)
_UNKNOWN = _Cause(
    (),
    "the guest components got no {uri} from {kbs}, for a reason that is not known here",
    "run the same by hand to read it: docs/kbs.md, Troubleshooting",
    retryable=True,
)


def explain(said: str, resource: Resource) -> KeyFetchError:
    """Return why a resource was not given. said: what the program wrote."""
    cause = next((cause for cause in _CAUSES if any(word in said for word in cause.words)), _UNKNOWN)
    return KeyFetchError(
        cause.what.format(uri=resource.key_uri, kbs=resource.kbs),
        cause.hint,
        retryable=cause.retryable,
        unreachable=cause.unreachable,
    )


def refused(error: ttrpc.Refused, resource: Resource, path: str) -> KeyFetchError:
    """Return the error for a status of the daemon. It answers with a code only; the reason is in its log."""
    if error.code == ttrpc.UNIMPLEMENTED:
        return KeyFetchError(
            f"what listens at {path} gives out no resources",
            "cdh_socket must be that of the confidential data hub, not of the attestation agent",
        )
    return KeyFetchError(
        f"the confidential data hub got no {resource.key_uri} from its KBS (status {error.code})",
        f"the reason is in its log: journalctl -u {DAEMON_UNIT}; {_SEE}",
        retryable=True,
        unreachable=True,  # the code does not tell: without a network, that is the cause
    )
