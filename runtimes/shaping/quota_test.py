"""A quota says what it used, and leaves nothing behind."""

import os

import pytest

from edge_deploy.core.errors import BadInput
from runtimes.shaping.quota import CpuQuota


def test_where_no_group_can_be_made_it_says_so(tmp_path):
    (tmp_path / "cpu").write_text("not a folder")
    with CpuQuota(0.5, name="edge", root=tmp_path / "nowhere") as quota:
        assert quota.how.startswith("none: control groups cannot be made here")
        quota.add(os.getpid())
        assert quota.throttled_s() == 0.0


def test_no_quota_is_no_quota_and_nonsense_is_refused():
    with CpuQuota(None, name="edge") as quota:
        assert quota.how == "no quota asked for"
    with pytest.raises(BadInput, match="must be above 0"):
        CpuQuota(0.0, name="edge")


def test_a_group_is_gone_afterwards(tmp_path):
    with CpuQuota(0.5, name="edge") as quota:
        group = quota._group
        if group is None:
            pytest.skip(quota.how)
        assert group.is_dir()
    assert not group.exists()
