"""What a key provider is to the rest: one record, beside the code that asks."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Callable, ClassVar

from cryptpilot_boot.passphrase import Passphrase, is_key_material

if TYPE_CHECKING:
    import datetime
    from collections.abc import Mapping

    from cryptpilot_boot.providers.fields import Key

Ask = Callable[[float], Passphrase]
"""Asks once for the passphrase, within so many seconds; a provider may take less time for a try than it is left.

Raises KeyFetchError; one that is `retryable` has `keys.retry` ask again.
"""


class Source:
    """Where a passphrase comes from: what a provider's table in a configuration file becomes.

    Each is a frozen dataclass, whose fields are the keys of the table. Equal ones are one secret, which is asked for
    once. provider: the table's name, as in `[encrypt.NAME]`. credentials: what of it others must not read, in words;
    "" for nothing. Fields that hold such have `repr=False`.
    """

    provider: ClassVar[str]
    credentials: ClassVar[str] = ""


@dataclasses.dataclass(frozen=True)
class Needs:
    """What an initrd image carries so that a source can be asked there, beside the agent.

    programs: by name, or by path. files: paths of other files. modules: of the kernel. drivers: modules of the kernel
    that go in if there are such. units: services of systemd, which start with the agent, as this system runs them, with
    their programs. network: whether it has to be up. authorities: whether the system's public CAs.
    """

    programs: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    drivers: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    network: bool = False
    authorities: bool = False


class Made(Passphrase):
    """A passphrase that was made for one volume, and what the volume's header has to keep of it.

    token: returns the JSON of a token; takes the number of the key slot that the passphrase opens, and what proves
    that we say so (see volume.proof).
    """

    __slots__ = ("token",)

    def __init__(self, passphrase: Passphrase, token: Callable[[int, str], dict[str, object]]) -> None:
        """Take a passphrase over, which is wiped."""
        with passphrase:
            super().__init__(passphrase.reveal(), strong=passphrase.strong)
        self.token = token


@dataclasses.dataclass(frozen=True)
class Complaint:
    """What is wrong with a key in view of others: its name, what it must be, and what to do."""

    key: str
    what: str
    todo: str


def _as_it_is(_: Source, value: memoryview) -> Passphrase:
    return Passphrase(value, strong=is_key_material(value))


@dataclasses.dataclass(frozen=True)
class Provider:
    """One way to get a passphrase. Functions take the source, an instance of `make`.

    make: what the table becomes. keys: of the table, by name. prepare: does all that needs no network, and returns
    what asks; raises KeyFetchError when that is clear to fail. describe: "provider", and "endpoint" where there is one:
    what a person needs to find the secret; nothing in it may be secret.

    mode: the key and its value by which one table has this one of several providers; the first of them in the table of
    providers is meant where that key is left out. complain: finds what is wrong with keys that are each right.
    needs: see Needs. secret: what is equal for two sources with one passphrase, of whatever provider; () when it is
    not known. require_usable: raises CryptpilotError for what would keep it from being asked, without asking.
    previous: the source of the value that the secret had before it was rotated; None if the provider keeps none.
    ends: when the credentials end; None when they do not, or nothing that can be trusted says so. Touches no network.
    caution: what is not wrong with a source, and should be seen to; "" for nothing.
    decode: what the provider makes of the secret's value, which an administrator has in a file; raises KeyFetchError.
    one_time: whether each answer is another, so that what was encrypted before is lost. on_device: whether the secret
    lies, sealed, in the header of the volume's own device: `make` takes the device's path as `dev` then. seal: makes
    such a secret, and is given what asks other sources; None for one that is there already, and is asked for. parts:
    whether the table is made of other providers' tables, as of `together`.
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
