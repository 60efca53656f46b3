"""Large files grow in parts, and an ended process is followed by one that goes on."""

import hashlib
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from converters.recommender import resumable
from converters.recommender.resumable import Part, Staging, made_part, read_progress, write_parts
from edge_deploy.core.errors import BadInput

SIZE = 1 << 12
COUNT = 40


def counted(made, *, stop_at=None):
    """Parts that note their number when they are made, and fail from one on."""

    def part(number):
        def make():
            if number == stop_at:
                raise RuntimeError("ended")
            made.append(number)
            return np.random.default_rng(number).integers(0, 256, SIZE, dtype=np.uint8)

        return Part(size=SIZE, make=make)

    return [made_part(b"head"), *(part(number) for number in range(COUNT))]


def whole():
    return b"head" + b"".join(
        np.random.default_rng(n).integers(0, 256, SIZE, dtype=np.uint8).tobytes() for n in range(COUNT)
    )


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(resumable, "JOURNAL_BYTES", 2 * SIZE)


def broken_off(folder, key="key", at=25):
    with pytest.raises(RuntimeError, match="ended"):
        write_parts(counted([], stop_at=at), folder / "f.bin", staging=Staging(folder=folder / "staging", key=key))
    assert not (folder / "f.bin").exists()


def test_the_hash_is_that_of_the_file(tmp_path):
    digest = write_parts(counted([]), tmp_path / "f.bin")
    assert (tmp_path / "f.bin").read_bytes() == whole()
    assert digest == hashlib.sha256(whole()).hexdigest()


def test_what_was_written_before_the_end_is_not_made_again(tmp_path, often):
    broken_off(tmp_path)
    made = []
    digest = write_parts(counted(made), tmp_path / "f.bin", staging=Staging(folder=tmp_path / "staging", key="key"))
    assert (tmp_path / "f.bin").read_bytes() == whole()
    assert digest == hashlib.sha256(whole()).hexdigest()
    assert min(made) > 10 and made == sorted(made)
    assert not list((tmp_path / "staging").iterdir())


def test_another_source_begins_anew(tmp_path, often):
    broken_off(tmp_path, key="yesterday's checkpoint")
    made = []
    write_parts(counted(made), tmp_path / "f.bin", staging=Staging(folder=tmp_path / "staging", key="today's"))
    assert sorted(made) == list(range(COUNT))
    assert (tmp_path / "f.bin").read_bytes() == whole()


@pytest.mark.parametrize("where", ["first", "last", "journal", "cut"])
def test_bytes_that_changed_meanwhile_are_made_again(tmp_path, often, where):
    broken_off(tmp_path)
    part, journal = tmp_path / "staging" / "f.bin.part", tmp_path / "staging" / "f.bin.journal"
    if where == "journal":
        journal.write_text(journal.read_text()[:-20])
    elif where == "cut":
        os.truncate(part, 3 * SIZE)
    else:
        at = 5 if where == "first" else json.loads(journal.read_text().splitlines()[-1])["bytes"] - 1
        with part.open("r+b") as file:
            file.seek(at)
            old = file.read(1)
            file.seek(at)
            file.write(bytes([old[0] ^ 1]))
    write_parts(counted([]), tmp_path / "f.bin", staging=Staging(folder=tmp_path / "staging", key="key"))
    assert (tmp_path / "f.bin").read_bytes() == whole()


def test_two_processes_do_not_write_one_file(tmp_path):
    staging = tmp_path / "staging"
    holder = "import fcntl,sys;f=open(sys.argv[1],'w');fcntl.flock(f,fcntl.LOCK_EX);print('held',flush=True);input()"
    staging.mkdir()
    command = [sys.executable, "-c", holder, str(staging / "f.bin.part")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(BadInput, match="another process"):
            write_parts(counted([]), tmp_path / "f.bin", staging=Staging(folder=staging, key="key"))
        other.stdin.close()


KILLED = """
import os, signal, sys
from pathlib import Path
from converters.recommender import resumable
from converters.recommender.resumable_test import counted
from converters.recommender.resumable import Part, Staging, write_parts
resumable.JOURNAL_BYTES = 8192
parts = counted([])
def die():
    os.kill(os.getpid(), signal.SIGKILL)
parts[30] = Part(size=parts[30].size, make=die)
write_parts(parts, Path(sys.argv[1], "f.bin"), staging=Staging(folder=Path(sys.argv[1], "staging"), key="key"))
"""


def test_a_killed_process_leaves_no_file_and_the_next_goes_on(tmp_path, often):
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert not (tmp_path / "f.bin").exists()
    made = []
    write_parts(counted(made), tmp_path / "f.bin", staging=Staging(folder=tmp_path / "staging", key="key"))
    assert min(made) > 10
    assert (tmp_path / "f.bin").read_bytes() == whole()


def test_progress_is_told_while_it_grows(tmp_path, monkeypatch):
    monkeypatch.setattr(resumable, "PROGRESS_S", 0.0)
    broken_off(tmp_path)
    assert read_progress(tmp_path / "staging").startswith("f.bin: 0 of 0 MB")
    assert read_progress(tmp_path) == ""


def test_memory_does_not_grow_with_the_file(tmp_path):
    """Parts of 1 MB, 200 of them: no more than a few are alive at a time."""
    alive, most = set(), [0]

    class Counted(np.ndarray):
        def __del__(self):
            alive.discard(id(self))

    def make():
        array = np.zeros(1 << 20, np.uint8).view(Counted)
        alive.add(id(array))
        most[0] = max(most[0], len(alive))
        return array

    write_parts([Part(size=1 << 20, make=make) for _ in range(200)], tmp_path / "f.bin")
    assert most[0] <= 12
