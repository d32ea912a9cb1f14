"""Shared by all tests: where real pictures lie, and the rule that nothing skips in CI."""

import os
from collections.abc import Generator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real pictures (ESCAPEMENT_REAL_DATA, else ``shared/data`` beside the checkout)."""
    folder = Path(os.environ.get("ESCAPEMENT_REAL_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real pictures: {folder} does not exist (set ESCAPEMENT_REAL_DATA)")
    return folder


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With ESCAPEMENT_NO_SKIPS a skip is a failure, except where only the real pictures are missing."""
    report = yield
    if os.environ.get("ESCAPEMENT_NO_SKIPS") and report.skipped and "real_data" not in item.keywords:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped where nothing may skip: {report.longrepr}"
    return report
