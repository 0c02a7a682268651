"""Which images are rebuilt, and what one that fails means for the others; no image is made here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cryptpilot_boot.cli.arguments import parse
from cryptpilot_boot.commands import image_rebuild
from cryptpilot_boot.commands.image_rebuild import Choice
from cryptpilot_boot.config import Boot, Config
from cryptpilot_boot.errors import CryptpilotError
from cryptpilot_boot.system import dracut, workplace
from tests.unit.test_config import GUIDE_OTP, configure

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGES = {"6.1": Path("/boot/initrd.img-6.1"), "6.2": Path("/boot/initrd.img-6.2"), "6.3": Path("/boot/initrd.img-6.3")}
WITH_AGENT = ("6.1", "6.3")
ALL_INCLUDED = Choice(every=True, included=True)


@pytest.fixture
def rebuilt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[bool, list[str], list[str]]]:
    """Rebuilds images of three kernels, of which the last runs; those named in `full` do not fit."""

    def rebuilt(
        choice: Choice, full: tuple[str, ...] = (), *, volumes: bool = True
    ) -> tuple[bool, list[str], list[str]]:
        config = configure(tmp_path, GUIDE_OTP) if volumes else Config(tmp_path, Boot(), ())
        said: list[str] = []
        errors: list[str] = []

        def one(_config: Config, _now: object, _ours: object, kernel: str, path: Path, _options: object) -> list[str]:
            if kernel in full:
                raise CryptpilotError(f"{path} was not rebuilt: no room")
            return ["rebuilt"]

        monkeypatch.setattr(image_rebuild, "_rebuild", one)
        good = image_rebuild.rebuild(config, choice, [], said.append, lambda error, _: errors.append(error.what))
        return good, said, errors

    monkeypatch.setattr(image_rebuild, "required", lambda _: None)
    monkeypatch.setattr(image_rebuild, "identities", lambda _: {})
    monkeypatch.setattr(image_rebuild, "_has_agent", lambda path: path.name.rpartition("-")[2] in WITH_AGENT)
    monkeypatch.setattr(dracut, "kernels", lambda: list(IMAGES))
    monkeypatch.setattr(dracut, "all_images", lambda kernel: [IMAGES[kernel]])
    monkeypatch.setattr(dracut, "running_kernel", lambda: "6.3")
    return rebuilt


def lines(*kernels: str) -> list[str]:
    return [f"{IMAGES[kernel]}: rebuilt" for kernel in kernels]


def test_all_images_or_those_alone_that_have_the_agent(rebuilt: Callable[..., Any]) -> None:
    assert rebuilt(Choice()) == (True, lines("6.3"), [])
    assert rebuilt(Choice(every=True)) == (True, lines(*IMAGES), [])
    assert rebuilt(ALL_INCLUDED) == (True, lines(*WITH_AGENT), [])
    assert rebuilt(Choice("6.2", included=True)) == (True, [], [])


def test_one_that_fails_costs_no_other(rebuilt: Callable[..., Any]) -> None:
    failure = [f"{IMAGES['6.1']} was not rebuilt: no room"]
    assert rebuilt(ALL_INCLUDED, ("6.1",)) == (False, lines("6.3"), failure)
    assert rebuilt(Choice(every=True), ("6.1",)) == (False, lines("6.2", "6.3"), failure)
    with pytest.raises(CryptpilotError, match="no room"):
        rebuilt(Choice("6.1"), ("6.1",))


def test_a_package_has_nothing_rebuilt_where_there_is_nothing_to_rebuild(
    rebuilt: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rebuilt(ALL_INCLUDED, volumes=False) == (True, [], [])
    monkeypatch.setattr(dracut, "kernels", list)
    assert rebuilt(ALL_INCLUDED) == (True, [], [])
    monkeypatch.setattr(dracut, "all_images", lambda _: [])
    with pytest.raises(CryptpilotError, match="no image of kernel"):
        rebuilt(Choice(every=True))


def test_what_a_killed_rebuild_left_does_not_take_the_room_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade is interrupted, and the image was half made beside the old one on a small /boot."""
    old = tmp_path / "initrd.img-6.1"
    old.write_bytes(b"old")
    left = tmp_path / "initrd.img-6.1.cryptpilot-new"
    left.write_bytes(b"half")
    monkeypatch.setattr(image_rebuild, "_summary", lambda _: None)
    monkeypatch.setattr(workplace, "is_writable", lambda _: True)
    monkeypatch.setattr(workplace, "room", lambda _: 1 << 40 if not left.exists() else 0)

    def fail(*_: object) -> None:
        raise CryptpilotError("dracut came to be asked")

    monkeypatch.setattr(dracut, "make_image", fail)
    config = configure(tmp_path / "etc", GUIDE_OTP)
    with pytest.raises(CryptpilotError, match="dracut came to be asked"):
        image_rebuild._rebuild(config, None, {}, "6.1", old, [])  # type: ignore[arg-type]
    assert (old.read_bytes(), left.exists()) == (b"old", False)


def test_what_cannot_be_removed_is_named_and_the_old_image_stays(tmp_path: Path) -> None:
    old = tmp_path / "initrd.img-6.1"
    old.write_bytes(b"old")
    left = tmp_path / "initrd.img-6.1.cryptpilot-new"
    left.mkdir()
    config = configure(tmp_path / "etc", GUIDE_OTP)
    with pytest.raises(CryptpilotError, match=rf"{old} was not rebuilt: {left}, .* cannot be removed: Is a directory"):
        image_rebuild._rebuild(config, None, {}, "6.1", old, [])  # type: ignore[arg-type]
    assert old.read_bytes() == b"old"


def test_the_words_of_a_package() -> None:
    arguments = parse(["initrd", "rebuild", "--all", "--if-included"])
    assert (arguments.all, arguments.if_included) == (True, True)
