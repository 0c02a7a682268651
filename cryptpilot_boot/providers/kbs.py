"""A resource of a Key Broker Service (KBS), which is given to a machine that proves what it runs.

The Trustee guest components attest and ask. Either their program is run for one answer (`kbs_program`), or their daemon
is asked at its socket (`kbs_daemon`).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from cryptpilot_boot.providers import kbs_text, pem
from cryptpilot_boot.providers.fields import STRING, Key, TomlType
from cryptpilot_boot.providers.provider import Needs, Provider, Source

if TYPE_CHECKING:
    from cryptpilot_boot.providers.provider import Ask

PROGRAM = "confidential-data-hub"
AGENT_UNIT = "attestation-agent.service"
DAEMON_UNIT = "confidential-data-hub-daemon.service"
_SCHEME = "unix://"
# Drivers that evidence needs, if they are not built into the kernel: of Intel, AMD and Hygon.
_DRIVERS = ("tdx_guest", "sev-guest", "csv-guest")


@dataclasses.dataclass(frozen=True)
class Kbs(Source):
    """A resource of a KBS, got by running the one-shot confidential data hub.

    kbs_url: address of the KBS. key_uri: "kbs:///<repository>/<type>/<tag>". kbs_root_cert: the only trusted CA, None
    for those of the system.
    """

    provider = "kbs"

    kbs_url: str
    key_uri: str
    kbs_root_cert: str | None = dataclasses.field(default=None, repr=False)


@dataclasses.dataclass(frozen=True)
class KbsDaemon(Source):
    """A resource of a KBS, got from the daemon of the confidential data hub, which knows the KBS.

    key_uri: as for Kbs. cdh_socket: "unix://" and the path of its socket.
    """

    provider = "kbs"

    key_uri: str
    cdh_socket: str = "unix:///run/confidential-containers/cdh.sock"

    @property
    def socket_path(self) -> str:
        """The path of the socket."""
        return self.cdh_socket[len(_SCHEME) :]


def _prepare_program(kbs: Kbs) -> Ask:
    from cryptpilot_boot.providers import kbs_program

    return kbs_program.prepare(kbs)


def _prepare_daemon(kbs: KbsDaemon) -> Ask:
    from cryptpilot_boot.providers import kbs_daemon

    return kbs_daemon.prepare(kbs)


def _require_program(_: Kbs) -> None:
    from cryptpilot_boot.providers import kbs_program

    kbs_program.require_usable()


def _caution(kbs: Kbs) -> str:
    if kbs.kbs_url.startswith("https:"):
        return ""
    return (
        "kbs_url is not https, so an attacker on the way can answer in the KBS's place, and what init encrypts then has"
        " their key; use https, with kbs_root_cert"
    )


_PEM = TomlType("a string", STRING.holds, pem.canonical)
_KEY_URI = Key(STRING, kbs_text.uri, required=True)

ONE_SHOT = Provider(
    make=Kbs,
    mode=("cdh_type", "one-shot"),
    keys={
        "kbs_url": Key(STRING, kbs_text.url, required=True),
        "key_uri": _KEY_URI,
        "kbs_root_cert": Key(_PEM, kbs_text.certificates),
    },
    prepare=_prepare_program,
    describe=lambda kbs: {"provider": f"KBS resource {kbs.key_uri}", "endpoint": kbs.kbs_url},
    needs=lambda kbs: Needs(
        programs=(PROGRAM,),
        units=(AGENT_UNIT,),
        drivers=_DRIVERS,
        network=True,
        authorities=kbs.kbs_root_cert is None and kbs.kbs_url.startswith("https:"),
    ),
    secret=lambda kbs: ("kbs", kbs.key_uri),
    require_usable=_require_program,
    caution=_caution,
)
DAEMON = Provider(
    make=KbsDaemon,
    mode=("cdh_type", "daemon"),
    keys={
        "key_uri": _KEY_URI,
        "cdh_socket": Key(STRING, kbs_text.socket),
    },
    prepare=_prepare_daemon,
    describe=lambda kbs: {"provider": f"KBS resource {kbs.key_uri}", "endpoint": kbs.socket_path},
    needs=lambda _: Needs(units=(AGENT_UNIT, DAEMON_UNIT), drivers=_DRIVERS, network=True, authorities=True),
    secret=lambda kbs: ("kbs", kbs.key_uri),
)
