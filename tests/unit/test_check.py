"""`config check`: what one volume's check meets is that volume's trouble alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from cryptpilot_boot import volume
from cryptpilot_boot.commands import check
from cryptpilot_boot.config import Boot, Config, Exec, Otp, Volume
from cryptpilot_boot.config.model import Identity
from cryptpilot_boot.providers.provider import Source
from cryptpilot_boot.providers.tpm2 import Tpm2


def test_a_bug_is_one_volumes_error_and_the_next_volume_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    volumes = tuple(Volume(name, f"/dev/{name}", Otp(), Path(f"{name}.toml")) for name in ("a", "b"))
    examine = volume.examine

    def stumble(one: Volume) -> volume.Status:
        if one.volume == "a":
            raise TypeError("quotes a value")
        return examine(one)

    monkeypatch.setattr(volume, "examine", stumble)
    said: list[str] = []
    config = Config(Path(), Boot(), volumes)
    assert not check.check(config, keep_checking=True, skip_passphrase=True, say=said.append)
    assert said[0].startswith("a: error: internal error: TypeError at ")
    assert said[1:] == ["a:   please report this", "b: warning: its disk is not attached: /dev/b: no such block device"]
    assert "quotes" not in "".join(said)


def test_what_cannot_be_said_is_no_volumes_trouble() -> None:
    def say(_: str) -> None:
        raise BrokenPipeError

    config = Config(Path(), Boot(), (Volume("a", "/dev/a", Otp(), Path("a.toml")),))
    with pytest.raises(BrokenPipeError):
        check.check(config, keep_checking=True, skip_passphrase=True, say=say)


SEALED = Tpm2("/dev/a")
COMMAND = Exec("true")
BOUND = Identity("", frozenset({"0" * 64}), Path("a.toml"))


@pytest.mark.parametrize(
    ("source", "identity", "ask", "said"),
    [
        (SEALED, None, False, ["which holds its sealed key"]),
        (COMMAND, None, True, ["its key is not asked for at boot"]),
        (SEALED, None, True, ["which holds its sealed key", "its key is not asked for at boot"]),
        (COMMAND, None, False, []),
        (SEALED, BOUND, True, []),
    ],
)
def test_a_volume_that_ought_to_be_bound_is_told_so(
    monkeypatch: pytest.MonkeyPatch, source: Source, identity: Identity | None, ask: bool, said: list[str]
) -> None:
    monkeypatch.setattr(volume, "examine", lambda one: volume.Status(one, volume.State.OPENED))
    one = Volume("a", "/dev/a", source, Path("a.toml"), auto_open=True, identity=identity)
    lines: list[str] = []
    config = Config(Path(), Boot(ask=ask), (one,))
    assert check.check(config, keep_checking=True, skip_passphrase=True, say=lines.append)
    warned = [line for line in lines if "not bound to its disk" in line]
    assert len(warned) == len(said)
    for line, part in zip(warned, said):
        assert part in line
        assert line.endswith(": cryptpilot bind a")
