"""A seeded generator of click logs in Criteo format with a planted, learnable structure.

Ids of each categorical field follow a power law, as in real logs: rank r has a probability proportional to
r^-exponent. The click probability is the sigmoid of a sum of planted parts: a weight for each id, products of two
fields' latent factors (what a dot interaction can learn), a linear part of log(1 + count), and noise that nobody can
learn. With the default strength the planted model's own AUC is about 0.87, and a DLRM trained on a few ten thousand
rows reaches 0.75 to 0.85. Two million rows take some seconds as arrays, and about twice that as text.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_deploy.core.errors import BadInput

__all__ = ["GeneratedArrays", "GeneratedLog", "generate_arrays", "generate_rows", "write_log"]

CHUNK_ROWS = 8192
HEXADECIMAL = np.frombuffer(b"0123456789abcdef", np.uint8)
SMALL_TABLES = (600, 300, 2000, 1500, 100, 12, 900, 200, 3, 1200, 700, 2000, 500, 26, 800, 1800, 10, 600, 400, 4)
TABLE_ROWS = (*SMALL_TABLES, 2000, 15, 14, 1600, 60, 1100)


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedLog:
    """What the generator plants.

    Attributes:
        table_rows: Distinct values of each of the 26 categorical fields.
        exponent: Of the power law of ids; 0 is uniform.
        click_rate: About the share of positive labels.
        strength: Standard deviation of the learnable part of the logit.
        missing: Share of empty values, in the integers and in every third categorical field.
    """

    table_rows: tuple[int, ...] = TABLE_ROWS
    exponent: float = 1.2
    click_rate: float = 0.25
    strength: float = 2.3
    noise: float = 0.3
    missing: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.table_rows) != 26 or min(self.table_rows) < 1:
            raise BadInput(f"generated log: {len(self.table_rows)} table sizes: must be 26, each at least 1.")
        if max(self.table_rows) > 1 << 24:
            raise BadInput(f"generated log: a table of {max(self.table_rows)} values: at most {1 << 24} have names.")
        if not 0 < self.click_rate < 1 or not 0 <= self.missing < 1 or self.strength <= 0 or self.noise < 0:
            raise BadInput("generated log: click_rate and missing are shares, strength and noise deviations.")


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedArrays:
    """A stretch of a generated log as a model takes it.

    Attributes:
        dense: float32 [rows, 13]: log(1 + count), about standardized, missing counts as 0.
        ids: int32 [rows, 26]: 0 for missing values, else 1 + rank of the value; tables have `table_rows` rows.
        labels: float32 [rows], 0 or 1.
        planted: float32 [rows]: the click probability without what nobody can learn; no model scores better.
    """

    dense: np.ndarray
    ids: np.ndarray
    labels: np.ndarray
    planted: np.ndarray
    table_rows: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Planted:
    """What all chunks of a log share; `cumulated` are the ids' distribution functions."""

    cumulated: tuple[np.ndarray, ...]
    weights: tuple[np.ndarray, ...]
    factors: tuple[np.ndarray, ...]
    pairs: tuple[tuple[int, int], ...]
    slopes: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chunk:
    """8192 rows: ids by table, counts [rows, 13], where values are missing, labels, learnable part of the logit."""

    ids: tuple[np.ndarray, ...]
    counts: np.ndarray
    count_gaps: np.ndarray
    id_gaps: np.ndarray
    labels: np.ndarray
    logits: np.ndarray


def write_log(path: Path, *, rows: int, log: GeneratedLog, first_row: int = 0) -> None:
    """Write `rows` rows as TSV, gzip-compressed where the name ends in `.gz`; rows depend on seed and position only.

    Args:
        first_row: Position of the first row, a multiple of 8192; a later part of the same endless log.
    """
    with gzip.open(path, "wb", compresslevel=1) if path.suffix == ".gz" else path.open("wb") as file:
        for count, chunk in _chunks(rows=rows, log=log, first_row=first_row):
            file.write(_text(chunk, count))


def generate_rows(*, rows: int, log: GeneratedLog, first_row: int = 0) -> Iterator[list[str]]:
    """Chunks of at most 8192 lines (without line ends) of the endless log that `log` describes."""
    for count, chunk in _chunks(rows=rows, log=log, first_row=first_row):
        yield _text(chunk, count).decode("ascii").splitlines()


def generate_arrays(*, rows: int, log: GeneratedLog, first_row: int = 0) -> GeneratedArrays:
    """The same rows as model inputs, without a way through text; see `GeneratedArrays`."""
    dense = np.empty((rows, 13), np.float32)
    ids = np.empty((rows, 26), np.int32)
    labels, planted = np.empty(rows, np.float32), np.empty(rows, np.float32)
    at = 0
    for count, chunk in _chunks(rows=rows, log=log, first_row=first_row):
        own = slice(at, at + count)
        counts = np.where(chunk.count_gaps, 0, chunk.counts)[:count]
        dense[own] = (np.log1p(counts) - 1.2) / 0.9
        for table, column in enumerate(chunk.ids):
            ids[own, table] = np.where(chunk.id_gaps[:, table], 0, column + 1)[:count]
        labels[own] = chunk.labels[:count]
        planted[own] = 1 / (1 + np.exp(-chunk.logits[:count]))
        at += count
    return GeneratedArrays(
        dense=dense, ids=ids, labels=labels, planted=planted, table_rows=tuple(count + 1 for count in log.table_rows)
    )


def _chunks(*, rows: int, log: GeneratedLog, first_row: int) -> Iterator[tuple[int, _Chunk]]:
    """Chunks with the number of their rows that are wanted."""
    if first_row % CHUNK_ROWS:
        raise BadInput(f"generated log: first_row = {first_row}: must be a multiple of {CHUNK_ROWS}.")
    planted = _plant(log)
    for start in range(first_row, first_row + rows, CHUNK_ROWS):
        yield min(CHUNK_ROWS, first_row + rows - start), _draw(planted, log, start // CHUNK_ROWS)


def _plant(log: GeneratedLog) -> _Planted:
    generator = np.random.default_rng([log.seed, 0])
    cumulated, weights, factors = [], [], []
    for rows in log.table_rows:
        law = np.arange(1, rows + 1, dtype=np.float64) ** -log.exponent
        law /= law.sum()
        weight = generator.normal(size=rows)
        weights.append(weight - law @ weight)
        factors.append(generator.normal(size=(rows, 4)) / 2)
        total = law.cumsum()
        cumulated.append(total / total[-1])
    order = generator.permutation(26).tolist()
    pairs = tuple((order[2 * index], order[2 * index + 1]) for index in range(6))
    return _Planted(
        cumulated=tuple(cumulated),
        weights=tuple(weights),
        factors=tuple(factors),
        pairs=pairs,
        slopes=generator.normal(size=13),
    )


def _draw(planted: _Planted, log: GeneratedLog, number: int) -> _Chunk:
    generator = np.random.default_rng([log.seed, 1, number])
    # What Generator.choice does with probabilities, whose sums need not be made anew for every chunk.
    ids = tuple(cumulated.searchsorted(generator.random(CHUNK_ROWS), side="right") for cumulated in planted.cumulated)
    counts = np.floor(np.exp(generator.normal(1.0, 1.2, (CHUNK_ROWS, 13)))).astype(np.int64)
    logs = (np.log1p(counts) - 1.2) / 0.9
    singles = sum(weights[column] for weights, column in zip(planted.weights, ids, strict=True))
    products = sum((planted.factors[a][ids[a]] * planted.factors[b][ids[b]]).sum(axis=1) for a, b in planted.pairs)
    # Shares of variance: half single ids, three tenths products, two tenths dense values.
    mixed = (
        np.sqrt(0.5 / 26) * singles
        + np.sqrt(0.3 / (6 * 4 / 16)) * products
        + np.sqrt(0.2 / 13) * (logs * planted.slopes).sum(axis=1)
    )
    # The sigmoid of a normal variable has its mean nearer to 1/2 than the sigmoid of its mean (MacKay, 1992).
    spread = np.sqrt(1 + np.pi * (log.strength**2 + log.noise**2) / 8)
    offset = np.log(log.click_rate / (1 - log.click_rate)) * spread
    learnable = offset + log.strength * mixed
    logits = learnable + log.noise * generator.normal(size=CHUNK_ROWS)
    labels = generator.random(CHUNK_ROWS) < 1 / (1 + np.exp(-logits))
    count_gaps = np.stack([generator.random(CHUNK_ROWS) < log.missing for _ in range(13)], axis=1)
    shares = [log.missing if table % 3 == 2 else 0.0 for table in range(26)]
    id_gaps = np.stack([generator.random(CHUNK_ROWS) < share for share in shares], axis=1)
    return _Chunk(ids=ids, counts=counts, count_gaps=count_gaps, id_gaps=id_gaps, labels=labels, logits=learnable)


def _text(chunk: _Chunk, count: int) -> bytes:
    """The first `count` rows as lines: every field in a column of fixed width, then all padding dropped at once."""
    parts = [np.where(chunk.labels, ord("1"), ord("0")).astype(np.uint8)[:, None]]
    tab = np.full((CHUNK_ROWS, 1), ord("\t"), np.uint8)
    digits = len(str(int(chunk.counts.max())))
    powers = 10 ** np.arange(digits - 1, -1, -1)
    for column in range(13):
        numbers = chunk.counts[:, column, None]
        written = (numbers >= powers) | (powers == 1)
        written &= ~chunk.count_gaps[:, column, None]
        parts += [tab, np.where(written, numbers // powers % 10 + ord("0"), 0).astype(np.uint8)]
    shifts = np.arange(28, -4, -4, dtype=np.uint32)
    for table, ids in enumerate(chunk.ids):
        values = _mixed(ids.astype(np.uint32) + np.uint32(table << 24))
        hexadecimal = HEXADECIMAL[(values[:, None] >> shifts) & np.uint32(15)]
        parts += [tab, np.where(chunk.id_gaps[:, table, None], 0, hexadecimal).astype(np.uint8)]
    parts.append(np.full((CHUNK_ROWS, 1), ord("\n"), np.uint8))
    lines = np.concatenate(parts, axis=1)[:count]
    text: bytes = lines[lines != 0].tobytes()
    return text


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """A permutation of the 32-bit integers (the finalizer of MurmurHash3), so that no two ids share a value."""
    with np.errstate(over="ignore"):
        numbers = (numbers ^ (numbers >> np.uint32(16))) * np.uint32(0x85EBCA6B)
        numbers = (numbers ^ (numbers >> np.uint32(13))) * np.uint32(0xC2B2AE35)
        mixed: np.ndarray = numbers ^ (numbers >> np.uint32(16))
    return mixed
