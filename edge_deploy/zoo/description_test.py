from pathlib import Path

import pytest

from edge_deploy.zoo.description import built_in_names, find_description, read_description


def test_every_built_in_description_is_found_by_its_name():
    assert built_in_names()
    for name in built_in_names():
        assert read_description(find_description(name))


@pytest.mark.parametrize("text", ["ic01.toml", "folder/ic01", "./ic01x", "data.npz"])
def test_what_is_no_name_is_a_path(text):
    assert find_description(text) == Path(text)


def test_a_file_of_the_user_goes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ic01").mkdir()
    assert find_description("ic01") == Path("ic01")
