"""What holds for every test of this project: library, notebooks, pages.

One thread each, since pytest runs several workers side by side; no test writes into a home folder;
and where CI=true a test that skips itself has failed, so that a green run means that all of it ran.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

# Before torch is imported, and for the kernels that run the notebooks.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ["PYTHONHASHSEED"] = "0"
_folder = tempfile.TemporaryDirectory(prefix="minflow-tests-")
os.environ["MINFLOW_PROGRESS"] = os.path.join(_folder.name, "progress.json")

import pytest  # noqa: E402


class NoSkips:
    """Turn each skipped test into a failed one that says why it was skipped."""

    @staticmethod
    def fail(report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            report.outcome = "failed"
            report.longrepr = f"{report.nodeid}: under CI=true nothing may be skipped. {why}"

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Iterator[None]:
        report = yield
        self.fail(report)
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self) -> Iterator[None]:
        report = yield
        self.fail(report)
        return report


def pytest_configure(config: pytest.Config) -> None:
    import matplotlib
    import torch

    matplotlib.use("agg")  # here alone: a notebook's kernel has its own way to show pictures
    torch.set_num_threads(1)
    if os.environ.get("CI") == "true":
        # A plugin, not a hook of this file: it must reach notebooks and doctests too.
        config.pluginmanager.register(NoSkips(), "no-skips")


@pytest.fixture(autouse=True)
def nothing_compiled_stays() -> Iterator[None]:
    from minflow.testing._case import compiling

    with compiling():
        yield


@pytest.fixture(scope="module")  # no longer: its event loop would be in the notebooks' way
def browser() -> Iterator[Any]:
    """The system's Chromium, else the one that Playwright has; neither: skip, and say so."""
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    flags = "no-sandbox disable-gpu disable-quic no-first-run disable-background-networking"
    flags += " disable-component-update disable-sync"
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    with api.sync_playwright() as playwright:
        for program in [*filter(None, map(shutil.which, names)), None]:
            try:
                browser = playwright.chromium.launch(
                    executable_path=program, args=[f"--{flag}" for flag in flags.split()]
                )
                break
            except Exception as error:  # no such browser, or it does not start: try the next
                why = error
        else:
            pytest.skip(f"no Chromium: neither the system's nor Playwright's own starts ({why})")
        yield browser
        browser.close()
