import subprocess
import sys
from pathlib import Path

import pytest

from edge_deploy.core.errors import BadInput
from edge_deploy.core.publish import published_folder


def write(folder, text):
    (folder / "model.tflite").write_text(text)


def test_a_folder_appears_complete(tmp_path):
    final = tmp_path / "deep" / "out"
    with published_folder(final) as partial:
        write(partial, "whole")
        assert not final.exists()
    assert (final / "model.tflite").read_text() == "whole"
    assert [entry.name for entry in final.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt])
def test_nothing_is_left_when_the_work_fails_midway(tmp_path, stop):
    with pytest.raises(stop), published_folder(tmp_path / "out") as partial:
        write(partial, "half")
        raise stop
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_kept_without_force(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(BadInput, match="--force"), published_folder(tmp_path / "out"):
        pass
    assert (tmp_path / "out").exists()


def test_the_old_folder_stays_when_its_replacement_fails(tmp_path):
    with published_folder(tmp_path / "out") as partial:
        write(partial, "old")
    with pytest.raises(ValueError), published_folder(tmp_path / "out", force=True) as partial:
        write(partial, "new")
        raise ValueError
    assert (tmp_path / "out" / "model.tflite").read_text() == "old"
    with published_folder(tmp_path / "out", force=True) as partial:
        write(partial, "new")
    assert (tmp_path / "out" / "model.tflite").read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_a_full_disk_is_a_clear_error_and_leaves_nothing(tmp_path):
    with pytest.raises(BadInput, match="No space left on device"), published_folder(tmp_path / "out") as partial:
        write(partial, "half")
        with Path("/dev/full").open("w") as full:
            full.write("x" * 100_000)
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from edge_deploy.core.publish import published_folder
with published_folder(Path(sys.argv[1])) as partial:
    (partial / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_goes_with_the_next_try_and_what_another_writes_stays(tmp_path):
    pytest.importorskip("fcntl")
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "out")], check=False)
    assert [entry.suffix for entry in tmp_path.iterdir()] == [".partial"]
    with published_folder(tmp_path / "out") as other:
        write(other, "other")
        assert len(list(tmp_path.iterdir())) == 1
        with published_folder(tmp_path / "out", force=True) as mine:
            write(mine, "mine")
            assert (other / "model.tflite").read_text() == "other"
        (tmp_path / "out").rename(tmp_path / "mine")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["mine", "out"]
