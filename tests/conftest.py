"""What all tests share: a fixed seed, repeatable property tests, coverage that is demanded of whole runs only."""

import random
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import settings

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def seed() -> int:
    """Seed every generator before each test."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  # libraries under test draw from the global generator
    torch.manual_seed(0)
    return 0


def pytest_configure(config: pytest.Config) -> None:
    """Demand full coverage only of a run of the whole suite, so that one file can be run alone."""
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS and not config.getoption("keyword")
    coverage = config.pluginmanager.getplugin("_cov")
    if coverage is not None and not whole:
        coverage.options.cov_fail_under = 0


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was skipped, a line for each reason; pytest's own list has one for each place."""
    skipped = [report.longrepr[2] for report in terminalreporter.stats.get("skipped", [])]
    for reason, count in Counter(reason.removeprefix("Skipped: ") for reason in skipped).items():
        terminalreporter.write_line(f"SKIPPED [{count}] {reason}")
