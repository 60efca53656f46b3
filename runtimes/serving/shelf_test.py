import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("runtimes.serving.nets_test")

from edge_deploy.core.errors import BadInput
from runtimes.formats.by_hand_test import dense
from runtimes.serving import nets_test as nets
from runtimes.serving.batching import Turns
from runtimes.serving.lane import Lane, rows_are_independent, sizes_of
from runtimes.serving.offers import find_offers, read_offer
from runtimes.serving.shelf import Loading, Shelf

FAR_S = 1e9


def on_a_shelf(offers, loading, body):
    async def inside():
        with ThreadPoolExecutor(3) as threads:
            shelf = Shelf(offers, loading, threads=threads, turns=Turns(2))
            try:
                return await body(shelf)
            finally:
                await shelf.close()

    return asyncio.run(inside())


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Five models of the same size."""
    folder = tmp_path_factory.mktemp("many")
    return find_offers([nets.write_artifact(folder / f"n{n}", dense(), name=f"net{n}") for n in range(5)])


def test_offers_are_wholes_and_tails_with_the_version_of_what_was_cut(halves):
    folder, digest = halves
    offers = {offer.info.name: offer for offer in find_offers([folder])}
    assert set(offers) == {"net", f"net@{nets.CUT}"}
    assert {offer.info.version for offer in offers.values()} == {digest}
    assert offers["net"].batches == (1, 4, 8)
    assert [info.shape for info in offers["net"].info.inputs] == [(-1, 4), (-1, 4)]
    assert offers[f"net@{nets.CUT}"].batches == (1,)
    with pytest.raises(BadInput, match="is the head of cut"):
        read_offer(folder / nets.CUT / "head")
    with pytest.raises(BadInput, match="no artifact and no folder of halves"):
        find_offers([folder / nets.CUT / "head" / "nothing"])


def test_models_are_loaded_when_asked_for_and_the_longest_unused_makes_room(many):
    size = many[0].file_bytes

    async def body(shelf):
        seen = []
        for place in (0, 1, 0, 2, 0, 3):
            found = await shelf.infer(many[place], nets.inputs(), rows=1, deadline_s=FAR_S)
            np.testing.assert_array_equal(found["out"], nets.expected(nets.inputs()))
            # Where the process was seen to grow by more than the file, fewer fit.
            assert shelf.cost_bytes <= loading.memory_bytes or len(shelf.loaded) == 1
            seen.append([name for name, _ in shelf.loaded])
        return seen

    loading = Loading(memory_bytes=40_000_000)
    seen = on_a_shelf(many, loading, body)
    assert all(names[-1] == f"net{place}" or place == 0 for names, place in zip(seen, (0, 1, 0, 2, 0, 3), strict=True))
    assert on_a_shelf(many, Loading(memory_bytes=size), body_of_one(many)) == 1


def body_of_one(many):
    async def body(shelf):
        for offer in many:
            await shelf.infer(offer, nets.inputs(), rows=1, deadline_s=FAR_S)
        return len(shelf.loaded)

    return body


def test_a_model_beyond_the_budget_is_refused_before_anybody_asks_for_it(many):
    with pytest.raises(BadInput, match=r"net0: \d+ bytes for 2 sessions, the memory budget is 100"):
        on_a_shelf(many, Loading(memory_bytes=100, sessions=2), body_of_one(many))


def test_a_file_that_is_not_the_manifests_is_refused_when_it_would_be_loaded(tmp_path):
    folder = nets.write_artifact(tmp_path / "net", dense(), name="net")
    offers = find_offers([folder])
    model = folder / "model.tflite"
    changed = bytearray(model.read_bytes())
    changed[-1] ^= 1
    model.write_bytes(changed)
    with pytest.raises(BadInput, match="sha256 differs"):
        on_a_shelf(offers, Loading(), body_of_one(offers))


def test_two_folders_of_one_model_and_version_are_refused(tmp_path):
    folders = [nets.write_artifact(tmp_path / each, dense(), name="net") for each in "ab"]
    with pytest.raises(BadInput, match="is net once more"):
        find_offers(folders)


def test_batches_are_used_only_where_rows_do_not_influence_each_other(halves):
    offer = next(each for each in find_offers([halves[0]]) if each.batches == (1, 4, 8))
    lane = Lane(offer, (1, 4, 8))
    assert rows_are_independent(offer, (1, 4, 8), lane)

    def by_the_whole_batch(arrays):
        """As a model that takes the scale of its activations from all rows."""
        return {"out": arrays["a"] / np.abs(arrays["a"]).max()}

    assert not rows_are_independent(offer, (1, 4, 8), by_the_whole_batch)
    assert sizes_of(offer, 6) == (1, 4) and sizes_of(offer, 100) == (1, 4, 8)
    found = lane(nets.inputs(rows=3))
    np.testing.assert_array_equal(found["out"], nets.expected(nets.inputs(rows=3)))
    lane.close()


def test_batches_are_chosen_for_the_load_when_a_limit_of_latency_is_given(halves):
    (offer,) = (each for each in find_offers([halves[0]]) if each.batches == (1, 4, 8))

    async def body(shelf):
        model = await shelf.load(offer)
        found = await shelf.infer(offer, nets.inputs(8), rows=8, deadline_s=FAR_S)
        np.testing.assert_array_equal(found["out"], nets.expected(nets.inputs(8)))
        return model.note

    assert "by" in on_a_shelf([offer], Loading(p95_s=0.05), body)
    assert "takes longer than the limit" in on_a_shelf([offer], Loading(p95_s=1e-9), body)
    with pytest.raises(BadInput, match="p95_s = 0"):
        Loading(p95_s=0)


def test_rows_that_fill_no_batch_are_run_by_what_takes_least(tmp_path):
    folder = nets.write_artifact(tmp_path / "net", dense((1, 64)), name="net")
    (offer,) = find_offers([folder])
    assert sizes_of(offer, None) == (1, 64) and sizes_of(offer, 8) == (1,)
    lane = Lane(offer, (1, 64))
    for rows in (1, 2, 3, 40, 64, 65, 131):
        np.testing.assert_array_equal(lane(nets.inputs(rows))["out"], nets.expected(nets.inputs(rows)))
    lane._seconds = {1: 1.0, 64: 10.0}
    assert [lane._size_for(rows) for rows in (1, 2, 9, 10, 11, 64, 65)] == [1, 1, 1, 64, 64, 64, 64]
    lane.close()
