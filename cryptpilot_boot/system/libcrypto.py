"""Private keys and PKCS#12 files, by the OpenSSL library that the interpreter's own `ssl` uses.

A package for this would bring a second OpenSSL, a third of the bundle's size. Functions and types are those of OpenSSL
3.0 and newer: see section 3 of its manual. No text of the library is passed on, because it may quote its input.
"""

from __future__ import annotations

import _ssl  # noqa: F401 - loads the library
import contextlib
import ctypes
import dataclasses
import datetime
import functools
import os
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Sequence

# A constant, since PyInstaller looks for literals in such calls, and would take the build machine's library along.
_NAME = "libcrypto.so.3"
_P, _SIZE, _BYTES, _INT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_int
_FUNCTIONS: dict[str, tuple[Any, Sequence[Any]]] = {
    "ASN1_TIME_to_tm": (_INT, (_P, _P)),
    "BIO_free": (_INT, (_P,)),
    "BIO_new_mem_buf": (_P, (_BYTES, _INT)),
    "ERR_clear_error": (None, ()),
    "EVP_DigestSign": (_INT, (_P, _P, _P, _BYTES, _SIZE)),
    "EVP_DigestSignInit_ex": (_INT, (_P, _P, _BYTES, _P, _BYTES, _P, _P)),
    "EVP_MD_CTX_free": (None, (_P,)),
    "EVP_MD_CTX_new": (_P, ()),
    "EVP_PKEY_eq": (_INT, (_P, _P)),
    "EVP_PKEY_free": (None, (_P,)),
    "EVP_PKEY_get_size": (_INT, (_P,)),
    "EVP_PKEY_is_a": (_INT, (_P, _BYTES)),
    "OPENSSL_sk_num": (_INT, (_P,)),
    "OPENSSL_sk_pop_free": (None, (_P, _P)),
    "OPENSSL_sk_value": (_P, (_P, _INT)),
    "OSSL_LIB_CTX_new": (_P, ()),
    "OSSL_LIB_CTX_set0_default": (_P, (_P,)),
    "OSSL_PROVIDER_load": (_P, (_P, _BYTES)),
    "PKCS12_free": (None, (_P,)),
    "PKCS12_parse": (_INT, (_P, _BYTES, _P, _P, _P)),
    "X509_free": (None, (_P,)),
    "X509_get0_notAfter": (_P, (_P,)),
    "X509_get0_notBefore": (_P, (_P,)),
    "X509_get0_pubkey": (_P, (_P,)),
    "d2i_PKCS12_bio": (_P, (_P, _P)),
}
"""By name: what a function returns, and what it takes."""


class CryptoError(Exception):
    """OpenSSL refused. It has no text."""


class PrivateKey:
    """A private key, which stays in the library's memory and is wiped with this object."""

    def __init__(self, handle: int) -> None:
        self._free = _library().EVP_PKEY_free  # at the interpreter's end, too, when modules are gone
        self._handle = handle

    def __del__(self) -> None:
        self._free(self._handle)

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied: the key would be freed twice."""
        raise TypeError("a private key cannot be copied")

    @property
    def is_rsa(self) -> bool:
        """Tell whether it is an RSA key (one for PSS alone counts as another kind)."""
        return bool(_library().EVP_PKEY_is_a(self._handle, b"RSA") == 1)

    def sign(self, message: bytes) -> bytes:
        """Return the signature of a message: for an RSA key PKCS#1 v1.5 with SHA-256. Raises CryptoError."""
        library = _library()
        with contextlib.ExitStack() as held:
            held.callback(library.ERR_clear_error)
            context = _made(library.EVP_MD_CTX_new())
            held.callback(library.EVP_MD_CTX_free, context)
            _require(
                library.EVP_DigestSignInit_ex(context, None, b"SHA256", _providers(), None, self._handle, None) == 1
            )
            size = library.EVP_PKEY_get_size(self._handle)
            _require(size > 0)
            signature, length = ctypes.create_string_buffer(size), _SIZE(size)
            _require(library.EVP_DigestSign(context, signature, ctypes.byref(length), message, len(message)) == 1)
            return signature.raw[: length.value]

    def belongs_to(self, public_key: int | None) -> bool:
        """Tell whether a public key of the library's is the one of this key."""
        return public_key is not None and bool(_library().EVP_PKEY_eq(self._handle, public_key) == 1)


@dataclasses.dataclass(frozen=True)
class Validity:
    """From when to when a certificate is valid (UTC)."""

    begin: datetime.datetime
    end: datetime.datetime


def open_pkcs12(data: bytes, password: bytes) -> tuple[PrivateKey | None, list[Validity]]:
    """Open a PKCS#12 file (DER); return its private key, if it has one, and the validity of that key's certificates.

    A certificate with a date that is invalid is left out. Raises CryptoError when the file is damaged or the
    password is another.
    """
    # C ends a string there: what follows would not count
    _require(b"\0" not in password)
    library = _library()
    with contextlib.ExitStack() as held:
        # a failure that stays in the queue is taken for one of TLS later
        held.callback(library.ERR_clear_error)
        # this thread's alone
        held.callback(library.OSSL_LIB_CTX_set0_default, _made(library.OSSL_LIB_CTX_set0_default(_providers())))
        source = _made(library.BIO_new_mem_buf(data, len(data)))
        held.callback(library.BIO_free, source)
        file = _made(library.d2i_PKCS12_bio(source, None))
        held.callback(library.PKCS12_free, file)
        handle, certificate, others = _P(), _P(), _P()
        held.callback(library.X509_free, certificate)
        held.callback(library.OPENSSL_sk_pop_free, others, ctypes.cast(library.X509_free, _P))
        _require(library.PKCS12_parse(file, password, *map(ctypes.byref, (handle, certificate, others))) == 1)
        if handle.value is None:
            return None, []
        key = PrivateKey(handle.value)
        # without others there is no stack, and the number is -1
        count = library.OPENSSL_sk_num(others)
        certificates = [certificate.value, *(library.OPENSSL_sk_value(others, index) for index in range(count))]
        own = [one for one in certificates if one and key.belongs_to(library.X509_get0_pubkey(one))]
        return key, [validity for one in own if (validity := _validity(one))]


class _Tm(ctypes.Structure):
    """What C has for a time, in its order; glibc and musl add the last two."""

    _fields_ = (
        *((name, _INT) for name in ("sec", "min", "hour", "mday", "mon", "year", "wday", "yday", "isdst")),
        ("gmtoff", ctypes.c_long),
        ("zone", _P),
    )


def _validity(certificate: int) -> Validity | None:
    library = _library()
    begin = _time(library.X509_get0_notBefore(certificate))
    end = _time(library.X509_get0_notAfter(certificate))
    return Validity(begin, end) if begin and end else None


def _time(handle: int | None) -> datetime.datetime | None:
    tm = _Tm()
    # without a handle it would be the present
    if handle is None or _library().ASN1_TIME_to_tm(handle, ctypes.byref(tm)) != 1:
        return None
    parts = (tm.year + 1900, tm.mon + 1, tm.mday, tm.hour, tm.min, tm.sec)
    # ASN.1 has a year 0
    return datetime.datetime(*parts, tzinfo=datetime.timezone.utc) if parts[0] >= datetime.MINYEAR else None


def _made(handle: int | None) -> int:
    if handle is None:
        raise CryptoError
    return handle


def _require(fulfilled: bool) -> None:
    if not fulfilled:
        raise CryptoError


@functools.lru_cache
def _library() -> ctypes.CDLL:
    """Return the library that is loaded already, and no other: nothing is searched for."""
    library = ctypes.CDLL(_NAME, mode=os.RTLD_NOLOAD)
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


@functools.lru_cache
def _providers() -> int:
    """Return a library context in which old files can be read, too.

    TLS has another one, without outdated ciphers. This one reads no configuration of the system.
    """
    library = _library()
    context = _made(library.OSSL_LIB_CTX_new())
    for name in (b"default", b"legacy"):
        _made(library.OSSL_PROVIDER_load(context, name))
    return context
