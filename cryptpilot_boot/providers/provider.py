"""A key provider as other packages see it: one record, beside the code that asks."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Callable, ClassVar

from cryptpilot_boot.passphrase import Passphrase, is_key_material

if TYPE_CHECKING:
    import datetime
    from collections.abc import Mapping

    from cryptpilot_boot.providers.fields import Key

Ask = Callable[[float], Passphrase]
"""Asks once for the passphrase, within a number of seconds; one try may take less time than that.

Raises KeyFetchError. If that is `retryable`, `keys.retry` asks again.
"""


class Source:
    """The source of a passphrase: the value of a provider's table in a configuration file.

    Each is a frozen dataclass, whose fields are the keys of the table. Equal sources share one secret, which is asked
    for once. provider: name of the table, as in `[encrypt.NAME]`. credentials: what in it other users must not read, in
    words; "" for nothing. Such fields have `repr=False`.
    """

    provider: ClassVar[str]
    credentials: ClassVar[str] = ""


@dataclasses.dataclass(frozen=True)
class Needs:
    """What an initrd image has to contain, besides the agent, to ask a source.

    programs: by name or path. files: paths of other files. modules: of the kernel. drivers: kernel modules that are
    optional. units: of systemd, which start with the agent, with their programs. network: whether it has to be up.
    authorities: whether it needs the system's public CAs.
    """

    programs: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    drivers: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    network: bool = False
    authorities: bool = False


class Made(Passphrase):
    """A passphrase that was made for one volume, with the token that the volume's header has to keep.

    token: returns the JSON of the token, from the number of the key slot and the proof (see volume.proof).
    """

    __slots__ = ("token",)

    def __init__(self, passphrase: Passphrase, token: Callable[[int, str], dict[str, object]]) -> None:
        """Take over a passphrase: it is wiped, and this one has its value."""
        with passphrase:
            super().__init__(passphrase.reveal(), strong=passphrase.strong)
        self.token = token


@dataclasses.dataclass(frozen=True)
class Complaint:
    """What is wrong with the value of a key together with others: the key, what it must be, and what to do."""

    key: str
    what: str
    todo: str


def _as_it_is(_: Source, value: memoryview) -> Passphrase:
    return Passphrase(value, strong=is_key_material(value))


@dataclasses.dataclass(frozen=True)
class Provider:
    """One way to get a passphrase. Functions take the source, an instance of `make`.

    make: the source class. keys: of the table, by name. prepare: does all that needs no network, and returns what asks;
    raises KeyFetchError if asking must fail. describe: "provider", and "endpoint" if there is one: what a person needs
    to find the secret, and nothing secret.

    mode: a key and its value that select this provider, if several share a table; without that key, the first of them
    in the table of providers is meant. complain: finds what is wrong with keys that are valid one by one. needs: see
    Needs. secret: equal for two sources, of any provider, with the same passphrase; () if that is not known.
    require_usable: raises CryptpilotError for what would keep it from being asked, without asking. previous: the source
    of the value before the rotation of the secret; None if the provider keeps none. ends: when the credentials expire,
    without using a network; None if they do not, or nothing trustworthy says so. caution: what is valid in a source but
    needs attention; "" for nothing. decode: returns the passphrase of a value that an administrator has in a file;
    raises KeyFetchError. one_time: whether each answer is a new key, so that encrypted data are lost. on_device:
    whether the secret is sealed in the header of the volume's device: `make` takes its path as `dev` then. seal: makes
    such a secret, and is given what asks other sources; None for a secret that exists already and is asked for. parts:
    whether the table holds tables of other providers, as `together` does.
    """

    make: type[Source]
    keys: Mapping[str, Key]
    prepare: Callable[[Any], Ask]
    describe: Callable[[Any], dict[str, str]]
    mode: tuple[str, str] | None = None
    complain: Callable[[Mapping[str, Any]], Complaint | None] = lambda _: None
    needs: Callable[[Any], Needs] = lambda _: Needs()
    secret: Callable[[Any], tuple[object, ...]] = lambda _: ()
    require_usable: Callable[[Any], None] = lambda _: None
    previous: Callable[[Any], Source | None] = lambda _: None
    ends: Callable[[Any], datetime.datetime | None] = lambda _: None
    decode: Callable[[Any, memoryview], Passphrase] = _as_it_is
    caution: Callable[[Any], str] = lambda _: ""
    one_time: bool = False
    on_device: bool = False
    seal: Callable[[Any, Callable[[Any], Passphrase]], Made | None] = lambda *_: None
    parts: bool = False

    @property
    def name(self) -> str:
        """The name of its table, as in `[encrypt.NAME]`."""
        return self.make.provider
