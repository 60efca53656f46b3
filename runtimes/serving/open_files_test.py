import subprocess
import sys

import pytest


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_as_many_open_files_are_asked_for_as_connections_need_and_the_system_gives():
    code = (
        "import resource\n"
        "from runtimes.serving.open_files import allow_open_files as allow\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (400, 1000))\n"
        "print(allow(100), resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
        "print(allow(500), resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
        "print(allow(5000), resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["100", "400", "500", "756", "744", "1000"]
