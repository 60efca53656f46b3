"""The pytest plugin: `pytest --device qemu:arm64-cortex-a76 --artifact DIR` runs the suite on an artifact.

Without --artifact it does nothing. Paths of own tests may be given too; they can use the fixture `on_device`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from device_tests.suite.opened import Opened

__all__ = ["on_device", "pytest_addoption", "pytest_configure", "pytest_generate_tests", "pytest_report_header"]

CHECKS = Path(__file__).with_name("checks.py")
OPTIONS = (
    ("--artifact", {"action": "append", "metavar": "DIR", "help": "artifact folder, folder of them, or model file"}),
    ("--device", {"default": "host", "metavar": "DEVICE", "help": "where to run: host, ssh:..., adb:..., qemu:..."}),
    ("--backend", {"metavar": "RUNTIME", "help": "runtime instead of the file's own"}),
    ("--task-data", {"metavar": "DIR", "help": "folder with the data of tasks, for the quality floor"}),
    ("--max-memory", {"metavar": "SIZE", "help": "budget, e.g. 64MiB; default: what the device has"}),
    ("--items", {"type": int, "metavar": "N", "help": "items of a task; default: all, on emulated devices 50"}),
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options; each acts only where --artifact is given."""
    group = parser.getgroup("edge-deploy", "edge-deploy: artifacts on devices")
    for name, settings in OPTIONS:
        try:
            group.addoption(name, dest=_dest(name), **settings)
        except ValueError:
            continue  # another plugin has this option; what it says is not for us


def pytest_configure(config: pytest.Config) -> None:
    """Run the suite where no tests were named."""
    if _artifacts(config) and config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args[:] = [str(CHECKS)]


def pytest_report_header(config: pytest.Config) -> str | None:
    """Which device is tested."""
    if not _artifacts(config):
        return None
    return f"edge-deploy: {', '.join(_artifacts(config))} on {_option(config, '--device')}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each artifact."""
    if "on_device" not in metafunc.fixturenames:
        return
    from device_tests.suite.opened import artifacts_below
    from edge_deploy.core.errors import EdgeDeployError

    try:
        paths = [path for given in _artifacts(metafunc.config) for path in artifacts_below(Path(given))]
    except EdgeDeployError as error:
        raise pytest.UsageError(str(error)) from error
    metafunc.parametrize("on_device", paths, ids=[path.name for path in paths], indirect=True, scope="session")


@pytest.fixture(scope="session")
def on_device(request: pytest.FixtureRequest) -> Iterator[Opened]:
    """The artifact, loaded on the device; a test of an artifact that does not load fails with the reason."""
    from device_tests.suite.opened import open_on_device
    from edge_deploy.core.errors import EdgeDeployError

    config = request.config
    try:
        opening = open_on_device(request.param, _option(config, "--device"), backend=_option(config, "--backend"))
        opened = opening.__enter__()
    except EdgeDeployError as error:
        pytest.fail(str(error), pytrace=False)
    try:
        yield opened
    finally:
        opening.__exit__(None, None, None)


def _artifacts(config: pytest.Config) -> list[str]:
    return config.getoption(_dest("--artifact"), default=None) or []


def _option(config: pytest.Config, name: str) -> str:
    found: str = config.getoption(_dest(name), default=None)
    return found


def _dest(name: str) -> str:
    return "edge_deploy" + name.replace("-", "_")
