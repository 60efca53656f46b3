"""Logs read in pieces give what logs read at once give, and bad ones are told by line."""

import gzip

import numpy as np
import pytest

from edge_deploy.core.errors import BadInput
from edge_deploy.core.features import encode_rows
from edge_deploy.zoo import click_stream, criteo
from edge_deploy.zoo.click_schema import criteo_schema, read_schema
from edge_deploy.zoo.click_stream import SPLIT, encode_log, fit_stream, pieces
from edge_deploy.zoo.criteo_generator import GeneratedLog, generate_arrays, write_log

SCHEMA = """
label = "clicked"
positive = ["yes"]
negative = ["no"]

[[dense]]
field = "age"
transform = "log1p"

[[categorical]]
field = "job"

[[categorical]]
field = "site"
modulus = 10

[[categorical]]
field = "day"
rows = 8
"""
HEADER = "day,clicked,job,age,site,unused\n"


@pytest.fixture()
def schema(tmp_path):
    (tmp_path / "log.toml").write_text(SCHEMA)
    return read_schema(tmp_path / "log.toml")


def rows(count, seed=0):
    generator = np.random.default_rng(seed)
    jobs = generator.choice(["smith", '"a, b"', "cook", ""], count)
    return "".join(
        f"{generator.integers(8)},{'yes' if generator.random() < 0.5 else 'no'},{job},{generator.integers(90)},s{k},x\n"
        for k, job in enumerate(jobs)
    )


def encoded(files, schema, folder):
    spec, sizes = fit_stream(files, schema)
    return spec, sizes, encode_log(files, schema, spec, sizes, folder)


def test_a_csv_log_becomes_arrays_as_its_schema_says(tmp_path, schema, monkeypatch):
    monkeypatch.setattr(click_stream, "PIECE_ROWS", 64)
    path = tmp_path / "log.csv"
    path.write_text(HEADER + rows(1000))
    spec, sizes, log = encoded([(path, None)], schema, tmp_path / "a")
    assert sum(sizes) == 1000 and 750 < sizes[0] < 850
    assert set(spec.categorical[0].vocabulary.values) == {"smith", "a, b", "cook"}
    assert spec.table_rows == (5, 11, 8)
    assert abs(float(log.dense["train"].mean())) < 1e-5
    assert abs(float(log.dense["train"].std()) - 1) < 1e-4
    everything = list(pieces(path, schema))
    assert [piece.first_row for piece in everything[:2]] == [1, 65]
    raw = [row for piece in everything for row in piece.rows]
    parts = np.concatenate([piece.parts for piece in everything])
    dense, ids = encode_rows(spec, raw)
    for number, name in enumerate(SPLIT):
        assert np.array_equal(log.dense[name], dense[parts == number])
        assert np.array_equal(log.ids[name], ids[parts == number])


def test_rows_keep_their_part_in_any_order_of_the_log(tmp_path, schema):
    lines = rows(300).splitlines()
    (tmp_path / "a.csv").write_text(HEADER + "\n".join(lines))
    (tmp_path / "b.csv").write_text(HEADER + "\n".join(reversed(lines)))
    one, other = (
        {
            row: part
            for piece in pieces(tmp_path / name, schema)
            for row, part in zip(piece.rows, piece.parts, strict=True)
        }
        for name in ("a.csv", "b.csv")
    )
    assert one == other


def test_a_generated_log_reads_like_its_arrays(tmp_path):
    log = GeneratedLog(seed=2)
    write_log(tmp_path / "log.tsv.gz", rows=3000, log=log)
    made = generate_arrays(rows=3000, log=log)
    spec, sizes, read = encoded([(tmp_path / "log.tsv.gz", 0)], criteo_schema(min_count=1), tmp_path / "a")
    assert sizes == (3000, 0, 0)
    assert np.array_equal(read.labels["train"], made.labels)
    for column in range(26):
        ours, theirs = read.ids["train"][:, column], made.ids[:, column]
        assert np.array_equal(ours == 0, theirs == 0)
        assert len(np.unique(ours * 100_000 + theirs)) == len(np.unique(theirs))
    assert np.array_equal(
        np.argsort(read.dense["train"][:, 0], kind="stable"), np.argsort(made.dense[:, 0], kind="stable")
    )
    assert spec.table_rows[0] == len(np.unique(made.ids[:, 0])) + 2 - (0 in made.ids[:, 0])
    part = criteo.read_rows(tmp_path / "log.tsv.gz")
    assert np.array_equal(encode_rows(spec, part.rows)[1], read.ids["train"])


def test_rare_values_count_as_unseen(tmp_path, schema):
    from dataclasses import replace

    path = tmp_path / "log.csv"
    path.write_text(HEADER + "1,yes,cook,1,a,\n2,no,cook,2,b,\n3,no,smith,3,c,\n")
    columns = tuple(replace(c, min_count=2) if c.field == "job" else c for c in schema.categorical)
    spec, _, log = encoded([(path, 0)], replace(schema, categorical=columns), tmp_path / "a")
    assert spec.categorical[0].vocabulary.values == ("cook",)
    assert log.ids["train"][:, 0].tolist() == [2, 2, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (HEADER, "holds no row"),
        ("day,clicked,job,site\n", "has no column age"),
        (HEADER + "1,yes,cook,1,a,\n1,yes,cook\n1,maybe,cook,1,a,\n", r"line 3: 3 fields: must be 6"),
        (HEADER + "1,yes,cook,1,a,\n1,maybe,cook,1,a,\n", r"line 3: label 'maybe': must be no or yes"),
        (HEADER + '1,yes,"cook" x,1,a,\n', "is no line of separated values"),
        (HEADER + "1,yes,cook,12x,a,\n", r"row 1: feature age: '12x': must be a finite number"),
        (HEADER + "1,yes,cook,1,a,\n" + "9,yes,cook,1,a,\n", r"row 2: feature day: '9': must be a number below 8"),
    ],
)
def test_bad_logs_say_where_and_what(tmp_path, schema, text, message):
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(BadInput, match=message):
        encoded([(tmp_path / "log.csv", 0)], schema, tmp_path / "a")


def test_a_log_cut_short_is_no_log(tmp_path):
    write_log(tmp_path / "log.tsv.gz", rows=500, log=GeneratedLog())
    whole = (tmp_path / "log.tsv.gz").read_bytes()
    (tmp_path / "log.tsv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match="cannot be read"):
        fit_stream([(tmp_path / "log.tsv.gz", 0)], criteo_schema())
    (tmp_path / "log.tsv.gz").write_bytes(gzip.compress(b"0\t1\n\x00"))
    with pytest.raises(BadInput, match="line 1: 2 fields: must be 40"):
        fit_stream([(tmp_path / "log.tsv.gz", 0)], criteo_schema())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('[[dense]]\nfield = "age"\ntransform = "log1p"', ""), "has no .*dense.* column"),
        (("clicked", "job"), "column job: is the label"),
        (("modulus", "modulo"), "modulo"),
        (("modulus = 10", "modulus = 10\nrows = 3"), "not both"),
        (('negative = ["no"]', 'negative = ["yes"]'), "positive and negative must each"),
        (("label =", "label"), "is not TOML"),
    ],
)
def test_bad_schemas_say_what_would_be_right(tmp_path, change, message):
    (tmp_path / "log.toml").write_text(SCHEMA.replace(*change))
    with pytest.raises(BadInput, match=message):
        read_schema(tmp_path / "log.toml")
