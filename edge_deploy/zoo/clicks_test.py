"""Readers split as agreed, and features are learned from the training part alone."""

import gzip

import numpy as np
import pytest

from edge_deploy.core.errors import BadInput
from edge_deploy.core.features import encode_rows
from edge_deploy.zoo import bank_marketing, criteo, movielens
from edge_deploy.zoo.clicks import CategoricalWish, ClickLog, DenseWish, fit_features, part_of, split_by_sha256
from edge_deploy.zoo.criteo_generator import CHUNK_ROWS, GeneratedLog, generate_rows, write_log

BANK_LINE = "58,management,married,tertiary,no,2143,yes,no,unknown,5,may,261,1,-1,0,unknown,{}"


def small_log(train, test=()):
    return ClickLog(
        name="small",
        fields=("n", "c"),
        dense=(DenseWish(field="n"),),
        categorical=(CategoricalWish(field="c", min_count=2),),
        train=part_of(train, [0.0] * len(train)),
        validation=part_of([], []),
        test=part_of(test, [1.0] * len(test)),
    )


def test_splitting_by_digest_ignores_the_order_of_lines_and_keeps_equal_lines_together():
    lines = [f"line {index % 70}" for index in range(100)]
    parts = split_by_sha256(lines, 0.8, 0.1)
    assert sorted(index for part in parts for index in part) == list(range(100))
    sets = [{lines[i] for i in part} for part in parts]
    assert not (sets[0] & sets[1] or sets[1] & sets[2] or sets[0] & sets[2])
    turned = split_by_sha256(lines[::-1], 0.8, 0.1)
    assert [{lines[::-1][i] for i in part} for part in turned] == sets
    assert split_by_sha256([], 0.8, 0.1) == [[], [], []]


def test_features_are_learned_from_training_rows_only():
    spec = fit_features(small_log([("1", "a"), ("3", "a"), ("5", "b"), ("7", "")], test=[("100", "z"), ("1", "z")]))
    assert spec.dense[0].mean == 4.0 and spec.dense[0].std == pytest.approx(np.sqrt(5))
    assert spec.categorical[0].vocabulary.values == ("a",)
    assert spec.table_rows == (3,)
    _, ids = encode_rows(spec, [("1", "a"), ("1", "b"), ("1", "z"), ("1", "")])
    assert ids[:, 0].tolist() == [2, 1, 1, 0]


def test_a_constant_field_is_not_divided_by_zero():
    spec = fit_features(small_log([("4", "a"), ("4", "a")]))
    assert (spec.dense[0].mean, spec.dense[0].std) == (0.0, 1.0)


def test_bank_rows_are_read_and_bad_ones_named_by_line(tmp_path):
    path = tmp_path / "bank.csv"
    path.write_text("\n".join(BANK_LINE.format("yes").replace("58", str(20 + k), 1) for k in range(20)) + "\n")
    log = bank_marketing.read(path)
    assert (len(log.train.rows), len(log.validation.rows), len(log.test.rows)) == (16, 2, 2)
    assert log.train.labels.tolist() == [1.0] * 16
    path.write_text(BANK_LINE.format("yes") + "\n" + BANK_LINE.format("maybe") + "\na,b\n")
    with pytest.raises(BadInput, match="line 2: label 'maybe': must be yes or no") as caught:
        bank_marketing.read(path)
    assert "line 3: 2 fields: must be 17" in str(caught.value)


def test_a_missing_or_damaged_file_is_named(tmp_path):
    with pytest.raises(BadInput, match="cannot be read"):
        bank_marketing.read(tmp_path)
    damaged = tmp_path / "log.tsv.gz"
    damaged.write_bytes(gzip.compress(b"0\t" + b"1\t" * 1000)[:-12])
    with pytest.raises(BadInput, match="cannot be read"):
        criteo.read_rows(damaged)


def test_a_generated_log_is_a_criteo_log_and_depends_on_seed_and_position_only(tmp_path):
    plain = GeneratedLog()
    write_log(tmp_path / "log.tsv", rows=CHUNK_ROWS + 10, log=plain)
    part = criteo.read_rows(tmp_path / "log.tsv")
    assert len(part.rows) == CHUNK_ROWS + 10
    assert 0.15 < part.labels.mean() < 0.35
    assert all(len(value) in (0, 8) for row in part.rows[:100] for value in row[13:])
    lines = (tmp_path / "log.tsv").read_text().splitlines()
    later = next(generate_rows(rows=10, log=plain, first_row=CHUNK_ROWS))
    assert later == lines[CHUNK_ROWS:]
    assert next(generate_rows(rows=10, log=GeneratedLog(seed=1))) != lines[:10]


def test_generated_ids_follow_a_power_law_and_never_collide():
    lines = next(generate_rows(rows=CHUNK_ROWS, log=GeneratedLog()))
    third = [line.split("\t")[14 + 3] for line in lines]
    values, counts = np.unique(third, return_counts=True)
    assert counts.max() > 20 * np.median(counts)
    assert len(values) <= GeneratedLog().table_rows[3]


def test_criteo_fields_become_tables_by_vocabulary_or_modulus(tmp_path):
    write_log(tmp_path / "log.tsv", rows=500, log=GeneratedLog())
    learned = fit_features(criteo.read(tmp_path / "log.tsv"))
    hashed = fit_features(criteo.read(tmp_path / "log.tsv", modulus=100))
    assert hashed.table_rows == (101,) * 26
    assert len(learned.dense) == 13 and len(learned.categorical) == 26
    _, ids = encode_rows(hashed, criteo.read_rows(tmp_path / "log.tsv").rows)
    assert ids.min() == 0 and ids.max() <= 100
    text = (tmp_path / "log.tsv").read_text()
    (tmp_path / "log.tsv").write_text(text + "2" + text[1 : text.index("\n")] + "\n1\t2\n")
    with pytest.raises(BadInput, match="line 501: label '2'"):
        criteo.read(tmp_path / "log.tsv")


def test_the_published_logs_are_read_whole(data):
    bank = bank_marketing.read(data / "ctr" / "bank_marketing_45k")
    assert [len(part.rows) for part in (bank.train, bank.validation, bank.test)] == [36169, 4521, 4521]
    films = movielens.read(data / "ctr" / "movielens_100k")
    assert len(films.train.rows) + len(films.validation.rows) == 90570 and len(films.test.rows) == 9430
    assert fit_features(films).table_rows[0] == 943 + 2
    smoke = criteo.read(data / "ctr" / "criteo_kaggle_8k")
    assert len(smoke.train.rows) == 7200 and len(smoke.validation.rows) + len(smoke.test.rows) == 800
