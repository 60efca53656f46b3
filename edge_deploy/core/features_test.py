"""Raw rows become the same inputs everywhere: encoding, hashing, files, golden rows."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest

from edge_deploy.core.errors import BadInput
from edge_deploy.core.features import (
    Categorical,
    Dense,
    FeatureSpec,
    GoldenRow,
    HashedIds,
    Vocabulary,
    encode,
    encode_rows,
    golden_problems,
    read_features,
    write_features,
)


def make_spec(vocabulary=("blue", "red")):
    return FeatureSpec(
        fields=("count", "balance", "colour", "site"),
        dense=(
            Dense(field="count", transform="log1p"),
            Dense(field="balance", transform="signed-log1p", mean=1.0, std=2.0, missing=-3.0),
        ),
        categorical=(
            Categorical(field="colour", rows=2 + len(vocabulary), vocabulary=Vocabulary(values=vocabulary)),
            Categorical(field="site", rows=11, hashed=HashedIds(modulus=10, seed=7)),
        ),
    )


def test_a_row_becomes_transformed_numbers_and_ids():
    dense, ids = encode(make_spec(), ("7", "-3", "red", "example.org"))
    np.testing.assert_allclose(dense, [np.log(8), (-np.log(4) - 1) / 2], rtol=1e-6)
    assert dense.dtype == np.float32 and ids.dtype == np.int64
    assert ids[0] == 3
    digest = hashlib.blake2b((7).to_bytes(8, "little") + b"example.org", digest_size=8).digest()
    assert ids[1] == 1 + int.from_bytes(digest, "little") % 10


def test_missing_and_unseen_values_have_ids_of_their_own():
    dense, ids = encode(make_spec(), ("", "", "", ""))
    np.testing.assert_allclose(dense, [0, (-np.log(4) - 1) / 2], rtol=1e-6)
    assert ids.tolist() == [0, 0]
    assert encode(make_spec(), ("1", "1", "green", ""))[1].tolist() == [1, 0]


def test_the_log_of_a_negative_count_is_that_of_zero():
    assert encode(make_spec(), ("-2", "1", "red", ""))[0][0] == 0.0


def test_hexadecimal_values_are_their_own_hash():
    hashed = HashedIds(modulus=1000, algorithm="hex-integer", first_id=0)
    assert hashed.id_of("8cf07265") == 0x8CF07265 % 1000
    for value in ("-1", "0x1", "1_0", "zz"):
        with pytest.raises(ValueError):
            hashed.id_of(value)


@pytest.mark.parametrize("size", [2, 500])
def test_the_description_survives_its_files(tmp_path, size):
    spec = make_spec(tuple(f"colour {index} \u2028\n" for index in range(size)))
    raw = ("7", "", "colour 1 \u2028\n", "")
    dense, ids = encode(spec, raw)
    golden = (GoldenRow(raw=raw, dense=tuple(dense.tolist()), ids=tuple(ids.tolist()), score=0.25),)
    spec = dataclasses.replace(spec, golden=golden)
    files = write_features(spec, tmp_path)
    assert [file.name for file in files] == ["features.json"] + ["vocabulary-0.json"] * (size > 256)
    assert read_features(tmp_path) == spec
    assert read_features(tmp_path / "features.json") == spec


def test_golden_rows_that_contradict_the_description_are_refused(tmp_path):
    spec = make_spec()
    golden = (GoldenRow(raw=("1", "2", "red", ""), dense=(0.0, 0.0), ids=(2, 0), score=0.5),)
    spec = dataclasses.replace(spec, golden=golden)
    assert len(golden_problems(spec)) == 2
    write_features(spec, tmp_path)
    with pytest.raises(BadInput, match="golden row 0: dense"):
        read_features(tmp_path)


def test_a_bad_value_names_row_and_feature():
    rows = [("1", "2", "red", ""), ("many", "nan", "red", "")]
    with pytest.raises(BadInput, match="row 1: feature count: 'many'") as caught:
        encode_rows(make_spec(), rows)
    assert len(caught.value.problems) == 2
    with pytest.raises(BadInput, match="row 0: 2 fields: must be 4"):
        encode_rows(make_spec(), [("1", "2")])


def test_descriptions_that_cannot_hold_are_refused():
    with pytest.raises(BadInput, match="ids reach 3: the table has 3 rows"):
        Categorical(field="colour", rows=3, vocabulary=Vocabulary(values=("blue", "red")))
    with pytest.raises(BadInput, match="exactly one of hashed, vocabulary and direct"):
        Categorical(field="colour", rows=3)
    with pytest.raises(BadInput, match="no such field"):
        FeatureSpec(fields=("a",), dense=(Dense(field="b"),), categorical=())
    with pytest.raises(BadInput, match="std above 0"):
        Dense(field="a", std=0.0)


def test_a_vocabulary_outside_the_folder_is_refused(tmp_path):
    write_features(make_spec(), tmp_path)
    text = json.loads((tmp_path / "features.json").read_text())
    text["categorical"][0]["vocabulary"]["file"] = "../secret.json"
    (tmp_path / "features.json").write_text(json.dumps(text))
    with pytest.raises(BadInput, match="must be a file name alone"):
        read_features(tmp_path)


def test_ids_that_come_as_they_are_must_lie_in_their_table():
    spec = FeatureSpec(fields=("item",), dense=(), categorical=(Categorical(field="item", rows=5, direct=True),))
    assert encode_rows(spec, [("4",), ("",)])[1].tolist() == [[4], [0]]
    for wrong in ("5", "-1", "1.5", "four"):
        with pytest.raises(BadInput, match="must be a number below 5"):
            encode_rows(spec, [(wrong,)])
