"""What is worked out when the agent is frozen is what it would work out itself, and is all of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from buildlib import precompute
from buildlib.base import ROOT

# Run with the interpreter that is frozen. Prints what the modules' dataclasses and patterns are, and what was compiled.
_LOOK = """
import builtins, hashlib, importlib, json, sys, types
directory, quick, *names = sys.argv[1:]
sys.path.insert(0, directory)
compiled = []
if quick == "quick":
    importers = types.ModuleType("pyimod02_importers")
    file = directory + "/archive"
    importers.pyz_archive = types.SimpleNamespace(_filename=file, _start_offset=0, toc={}, extract=None)
    sys.modules["pyimod02_importers"] = importers
    from re import _compiler
    slow = _compiler.compile
    _compiler.compile = lambda pattern, flags=0: compiled.append(str(pattern)) or slow(pattern, flags)
    exec(compile(open("buildlib/quick_start.py").read(), "quick_start", "exec"))
    import dataclasses, re
    run = dataclasses.exec
    import quick_tables
    def execute(text, *rest):
        if text not in quick_tables.CODE:
            compiled.append(text)
        run(text, *rest)
    dataclasses.exec = execute
    assert "inspect" not in sys.modules
    re.purge()
    compiled.clear()
import dataclasses, re
for name in names:
    importlib.import_module(name)
missed = list(compiled)
import inspect
text = "# kst-1.cryptoservice.kms.aliyuncs.com:443 [encrypt.kms] 2026-11-29T01:02:03Z /dev/mapper/data_1 = 0x1F, 1e5 %s"
classes, patterns = {}, {}
for name in sorted(sys.modules):
    for key, value in sorted(vars(sys.modules[name]).items()):
        if dataclasses.is_dataclass(value) and isinstance(value, type) and name.startswith("cryptpilot_boot"):
            methods = {n: f.__code__.co_code.hex() for n, f in vars(value).items() if hasattr(f, "__code__")}
            signature = re.sub(" at 0x[0-9a-f]+", "", str(inspect.signature(value)))
            classes[f"{name}.{key}"] = [signature, value.__hash__ is not None, methods]
        elif isinstance(value, re.Pattern) and name not in ("quick_tables", "__main__"):
            sample = text if isinstance(value.pattern, str) else text.encode()
            found = [(one.span(), str(one.groups())) for one in value.finditer(sample)]
            patterns[f"{name}.{key}"] = [str(value.pattern), int(value.flags), dict(value.groupindex), found]
print(json.dumps([classes, patterns, missed]))
"""


# The environment that freezes is made first, with an interpreter that is compiled.
pytestmark = pytest.mark.slow

# As freezing has it: protobuf makes a pattern from a set.
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}


@pytest.fixture(scope="module")
def python() -> Path:
    command: list[str | Path] = [sys.executable, ROOT / "build.py", "venv", "build"]
    place = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    return Path(place, "bin/python")


def looked(python: Path, directory: Path, quick: str) -> list[Any]:
    names = [name for name in precompute.modules() if ".report.picture" not in name]
    command: list[str | Path] = [python, "-OO", "-c", _LOOK, directory, quick, *names]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout)
    return found


def test_what_is_looked_up_is_what_would_be_compiled(python: Path, tmp_path: Path) -> None:
    (tmp_path / "archive").touch()
    command: list[str | Path] = [python, "-OO", "-m", "buildlib.precompute", tmp_path / f"{precompute.NAME}.py"]
    subprocess.run(command, check=True, cwd=ROOT, env=ENVIRONMENT)
    classes, patterns, _ = looked(python, tmp_path, "slow")
    quick_classes, quick_patterns, compiled = looked(python, tmp_path, "quick")
    assert len(classes) > 60
    assert len(patterns) > 60
    assert quick_classes == classes
    assert quick_patterns == patterns
    assert compiled == []


def test_the_same_is_written_each_time(python: Path, tmp_path: Path) -> None:
    for locale in ("C", "C.UTF-8"):
        command: list[str | Path] = [python, "-OO", "-m", "buildlib.precompute", tmp_path / f"{locale}.py"]
        subprocess.run(command, check=True, cwd=ROOT, env={**ENVIRONMENT, "LANG": locale})
    assert (tmp_path / "C.py").read_bytes() == (tmp_path / "C.UTF-8.py").read_bytes()
