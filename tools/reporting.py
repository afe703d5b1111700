"""A pytest plugin: no test is left out in silence, and in CI no test is skipped at all."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

import pytest
import torch

LEFT_OUT = "clear_left_out"
Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


class Reporting:
    """Leave out what the machine cannot run, say so, and turn skips into failures if strict."""

    def __init__(self, *, strict: bool) -> None:
        self.strict = strict
        self.left_out = 0

    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Deselect tests marked ``gpu`` on a machine without one."""
        if torch.cuda.is_available():
            return
        for_gpu = [item for item in items if item.get_closest_marker("gpu")]
        if for_gpu:
            self.left_out = len(for_gpu)
            config.hook.pytest_deselected(items=for_gpu)
            items[:] = [item for item in items if item not in set(for_gpu)]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self,
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Judge a test's skip."""
        return self._judge((yield))

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(
        self,
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """Judge the skip of a whole module."""
        return self._judge((yield))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: object) -> None:
        """Take over the number from one of several processes, all of which leave out the same."""
        self.left_out = getattr(node, "workeroutput", {}).get(LEFT_OUT, self.left_out)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Give the number to the process that writes the summary, if this is not the one."""
        output: dict[str, int] | None = getattr(session.config, "workeroutput", None)
        if output is not None:
            output[LEFT_OUT] = self.left_out

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Tell how many tests wait for another machine."""
        if self.left_out:
            terminalreporter.write_line(
                f"{self.left_out} tests for a GPU left out: this machine has none."
            )

    def _judge(self, report: Report) -> Report:
        expected_failure = hasattr(report, "wasxfail")
        if self.strict and report.skipped and not expected_failure:
            report.outcome = "failed"
            report.longrepr = f"Skipped, which CI does not allow: {reason(report.longrepr)}"
        return report


def reason(skip: object) -> str:
    """Read what a skip says: pytest keeps it as (file, line, reason)."""
    if isinstance(skip, tuple):
        file, line, why = skip
        return f"{file}:{line}: {why}"
    return str(skip)
