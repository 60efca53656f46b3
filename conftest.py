"""Fixtures that every package's tests share."""

import os
from pathlib import Path

import pytest

# Before any library starts its threads: tests run side by side, and threads that spin would starve each other.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of development models and data sets; tests that ask for it are skipped where there is none."""
    folder = os.environ.get("EDGE_DEPLOY_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("EDGE_DEPLOY_DATA does not name a folder of development data")
    return Path(folder)
