"""The libraries of the interpreter, compiled from source and kept: OpenSSL, libffi, and zlib to link with.

Uses: the compiler of buildlib/compiler.py, make and perl.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from buildlib import compiler, sources
from buildlib.base import ROOT, digest, run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SOURCES = (sources.ZLIB, sources.LIBFFI, sources.OPENSSL)

# Where OpenSSL looks for a configuration and authorities, and finds none: those of the system are for the system's.
_OPENSSL_DIRECTORY = "/usr/libexec/cryptpilot/ssl"
# What TLS to a gateway, and reading a PKCS#12 file of any age, does not take.
_OPENSSL_OPTIONS = [
    "no-apps",
    "no-docs",
    "no-tests",
    "no-dso",
    "no-engine",
    "no-module",
    "no-cmp",
    "no-comp",
    "no-dtls",
    "no-quic",
    "no-srp",
    "no-ssl3",
    "no-ts",
    "no-weak-ssl-ciphers",
    "no-aria",
    "no-bf",
    "no-blake2",
    "no-camellia",
    "no-cast",
    "no-gost",
    "no-idea",
    "no-mdc2",
    "no-rc4",
    "no-rmd160",
    "no-seed",
    "no-siphash",
    "no-slh-dsa",
    "no-whirlpool",
]
_OPENSSL_TARGETS = {"x86_64": "linux-x86_64", "aarch64": "linux-aarch64"}

_ZLIB_FILES = [
    "adler32",
    "compress",
    "crc32",
    "deflate",
    "gzclose",
    "gzlib",
    "gzread",
    "gzwrite",
    "infback",
    "inffast",
    "inflate",
    "inftrees",
    "trees",
    "uncompr",
    "zutil",
]

# What its configure script would find out, which autoconf has to make first.
_LIBFFI_SETTINGS = {
    "EH_FRAME_FLAGS": '"a"',
    "FFI_EXEC_STATIC_TRAMP": "1",
    "HAVE_ALLOCA_H": "1",
    "HAVE_AS_CFI_PSEUDO_OP": "1",
    "HAVE_AS_X86_64_UNWIND_SECTION_TYPE": "1",
    "HAVE_AS_X86_PCREL": "1",
    "HAVE_HIDDEN_VISIBILITY_ATTRIBUTE": "1",
    "HAVE_LONG_DOUBLE": "1",
    "HAVE_MEMCPY": "1",
    "HAVE_MEMFD_CREATE": "1",
    "HAVE_MKOSTEMP": "1",
    "HAVE_RO_EH_FRAME": "1",
    "SIZEOF_DOUBLE": "8",
    "SIZEOF_LONG_DOUBLE": "16",
    "SIZEOF_SIZE_T": "8",
    "STDC_HEADERS": "1",
}
_LIBFFI_HIDDEN = """
#ifdef LIBFFI_ASM
#define FFI_HIDDEN(name) .hidden name
#else
#define FFI_HIDDEN __attribute__ ((visibility ("hidden")))
#endif
"""
_LIBFFI_FILES = {
    "x86_64": ("X86_64", "x86", ["ffi64.c", "unix64.S", "ffiw64.c", "win64.S"]),
    "aarch64": ("AARCH64", "aarch64", ["ffi.c", "sysv.S"]),
}
"""By machine: what libffi calls it, the directory, and the files there."""


def libraries() -> Path:
    """Return a directory with the libraries and their headers, compiled now unless that is done. Raises BuildError."""
    return compiler.compiled("libraries", key(), SOURCES, _make)


def key() -> str:
    """Return a digest of all that decides what the libraries are."""
    parts = [(ROOT / "buildlib/libraries.py").read_bytes(), *(repr(source).encode() for source in SOURCES)]
    return digest([compiler.key().encode(), *parts])


def _make(work: Path, env: Mapping[str, str]) -> Path:
    stage = work / "stage"
    (stage / "lib").mkdir(parents=True)
    (stage / "include").mkdir()
    _zlib(work / sources.ZLIB.directory, stage, env)
    _libffi(work / sources.LIBFFI.directory, stage, env)
    _openssl(work / sources.OPENSSL.directory, stage, env)
    return stage


def _zlib(source: Path, stage: Path, env: Mapping[str, str]) -> None:
    flags = ["-fPIC", "-D_LARGEFILE64_SOURCE=1", "-DHAVE_UNISTD_H", "-DHAVE_STDARG_H", "-DHAVE_HIDDEN"]
    link = ["-shared", "-Wl,-soname,libz.so.1", "-Wl,--version-script=zlib.map", "-o", "libz.so"]
    run(["cc", *flags, *link, *(f"{name}.c" for name in _ZLIB_FILES)], cwd=source, env=env)
    shutil.copy(source / "libz.so", stage / "lib")
    shutil.copy(source / "libz.so", stage / "lib/libz.so.1")
    for name in ("zconf.h", "zlib.h"):
        shutil.copy(source / name, stage / "include")


def _libffi(source: Path, stage: Path, env: Mapping[str, str]) -> None:
    target, directory, names = _LIBFFI_FILES[compiler.machine()]
    header = (source / "include/ffi.h.in").read_text()
    for word, value in {
        "VERSION": sources.LIBFFI.version,
        "TARGET": target,
        "HAVE_LONG_DOUBLE": "1",
        "FFI_EXEC_TRAMPOLINE_TABLE": "0",
    }.items():
        header = header.replace(f"@{word}@", value)
    (stage / "include/ffi.h").write_text(header)
    shutil.copy(source / "src" / directory / "ffitarget.h", stage / "include")
    settings = "".join(f"#define {name} {value}\n" for name, value in _LIBFFI_SETTINGS.items())
    (source / "fficonfig.h").write_text(settings + _LIBFFI_HIDDEN)
    files = [f"src/{name}.c" for name in ("prep_cif", "types", "raw_api", "closures", "tramp")]
    files += [f"src/{directory}/{name}" for name in names]
    include = [".", "include", "src", stage / "include"]
    flags = ["-c", "-fPIC", "-DHAVE_CONFIG_H", "-D_GNU_SOURCE"]
    run(["cc", *flags, *(f"-I{path}" for path in include), *files], cwd=source, env=env)
    objects = sorted(path.name for path in source.glob("*.o"))
    run(["ar", "rcs", stage / "lib/libffi.a", *objects], cwd=source, env=env)


def _openssl(source: Path, stage: Path, env: Mapping[str, str]) -> None:
    places = ["--prefix=/", "--libdir=lib", f"--openssldir={_OPENSSL_DIRECTORY}"]
    # what counts is in assembler; the rest is to be small
    configure = ["./Configure", _OPENSSL_TARGETS[compiler.machine()], *places, *_OPENSSL_OPTIONS, "-Os"]
    run(configure, cwd=source, env=env, hint="OpenSSL is configured by perl; Debian has it in the package perl")
    # the shared libraries alone: all else is compiled apart, which would take twice the time
    run(["make", "build_generated"], cwd=source, env=env)
    run(["make", "libcrypto.so", "libssl.so"], cwd=source, env=env)
    shutil.copytree(source / "include/openssl", stage / "include/openssl")
    for name in ("libcrypto.so", "libssl.so"):
        for path in source.glob(f"{name}*"):
            shutil.copy(path, stage / "lib", follow_symlinks=False)
