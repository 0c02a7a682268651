"""A stage whose answers a test gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from cryptpilot_boot.boot import stage

if TYPE_CHECKING:
    from collections.abc import Collection

    from cryptpilot_boot.boot.plan import Plan


class Answers:
    """What a stage answers; see `boot.needs.Stage`."""

    def __init__(
        self,
        report: Callable[[stage.Outcome], object],
        needed_by_pivot: Callable[[], Collection[str] | None],
        needed_before_network: Callable[[], Collection[str]],
    ) -> None:
        self._report = report
        self.needed_by_pivot = needed_by_pivot
        self.needed_before_network = needed_before_network

    def report(self, outcome: stage.Outcome) -> None:
        """Give the test a result."""
        self._report(outcome)

    def on_deferral(self) -> None:
        """Do nothing: no network is waited for."""


def run(
    plan: Plan,
    report: Callable[[stage.Outcome], object] = lambda _: None,
    needed_by_pivot: Callable[[], Collection[str] | None] = lambda: None,
    *,
    needed_before_network: Callable[[], Collection[str]] = tuple,
) -> list[stage.Outcome]:
    """Run a stage; by default it is not known what the pivot needs."""
    return stage.run(plan, Answers(report, needed_by_pivot, needed_before_network))
