"""Runs in the frozen agent before all else: what was worked out when it was frozen is looked up.

See buildlib/precompute.py. What is not in the tables is worked out as usual. All names of the standard library and of
PyInstaller here are those of the releases that the locks and buildlib/sources.py name.
"""

# mypy: disable-error-code="arg-type, attr-defined, import-not-found"
from __future__ import annotations


def _quick_start() -> None:
    import _sre
    import builtins
    import marshal
    import os
    import sys
    import types
    import zlib
    from re import _compiler

    import pyimod02_importers
    from quick_tables import CODE, PATTERNS

    # `dataclasses` reads annotations with it, and writes docstrings that are not read. It takes 10 ms to load.
    inspect = types.ModuleType("inspect")
    vars(inspect).update(
        get_annotations=lambda one: vars(one).get("__annotations__", {}),
        signature=int,  # raises what stands for a signature that is not known
    )
    sys.modules["inspect"] = inspect
    import dataclasses

    del sys.modules["inspect"]

    def execute(text: str, *rest: object) -> None:
        builtins.exec(CODE.get(text, text), *rest)  # noqa: S102

    dataclasses.exec = execute

    compile_pattern = _compiler.compile

    def compile_known(pattern: object, flags: int = 0) -> object:
        known = PATTERNS.get((pattern, int(flags))) if type(pattern) in (str, bytes) else None
        if known is None:
            return compile_pattern(pattern, flags)
        all_flags, code, groups, index, names = known
        return _sre.compile(pattern, all_flags, list(code), groups, index, names)

    _compiler.compile = compile_known

    # The archive of the modules would be opened for each of them.
    archive = pyimod02_importers.pyz_archive
    file = os.open(archive._filename, os.O_RDONLY | os.O_CLOEXEC)
    extract = archive.extract

    def extract_quickly(name: str, raw: bool = False) -> object:
        kind, offset, length = archive.toc.get(name, (None, 0, 0))
        if raw or kind not in (0, 1):  # a module, a package
            return extract(name, raw)
        return marshal.loads(zlib.decompress(os.pread(file, length, archive._start_offset + offset)))  # noqa: S302

    archive.extract = extract_quickly


_quick_start()
del _quick_start
