"""A seeded generator of click logs in Criteo format with a planted, learnable structure.

Ids of each categorical field follow a power law, as in real logs: rank r has a probability proportional to
r^-exponent. The click probability is the sigmoid of a sum of planted parts: a weight for each id, products of two
fields' latent factors (what a dot interaction can learn), a linear part of log(1 + count), and noise that nobody can
learn. With the default strength the planted model's own AUC is about 0.87, and a DLRM trained on a few ten thousand
rows reaches 0.75 to 0.85.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_deploy.core.errors import BadInput

__all__ = ["GeneratedLog", "generate_rows", "write_log"]

CHUNK_ROWS = 8192
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
        if not 0 < self.click_rate < 1 or not 0 <= self.missing < 1 or self.strength <= 0 or self.noise < 0:
            raise BadInput("generated log: click_rate and missing are shares, strength and noise deviations.")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Planted:
    probabilities: tuple[np.ndarray, ...]
    values: tuple[np.ndarray, ...]
    weights: tuple[np.ndarray, ...]
    factors: tuple[np.ndarray, ...]
    pairs: tuple[tuple[int, int], ...]
    slopes: np.ndarray


def write_log(path: Path, *, rows: int, log: GeneratedLog, first_row: int = 0) -> None:
    """Write `rows` rows as TSV; rows depend on the seed and on their position only.

    Args:
        first_row: Position of the first row, a multiple of 8192; a later part of the same endless log.
    """
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for lines in generate_rows(rows=rows, log=log, first_row=first_row):
            file.write("\n".join(lines) + "\n")


def generate_rows(*, rows: int, log: GeneratedLog, first_row: int = 0) -> Iterator[list[str]]:
    """Chunks of at most 8192 lines (without line ends) of the endless log that `log` describes."""
    if first_row % CHUNK_ROWS:
        raise BadInput(f"generated log: first_row = {first_row}: must be a multiple of {CHUNK_ROWS}.")
    planted = _plant(log)
    for start in range(first_row, first_row + rows, CHUNK_ROWS):
        lines = _chunk(planted, log, start // CHUNK_ROWS)
        yield lines[: first_row + rows - start]


def _plant(log: GeneratedLog) -> _Planted:
    generator = np.random.default_rng([log.seed, 0])
    probabilities, values, weights, factors = [], [], [], []
    for table, rows in enumerate(log.table_rows):
        law = np.arange(1, rows + 1, dtype=np.float64) ** -log.exponent
        probabilities.append(law / law.sum())
        scattered = _mixed(np.arange(rows, dtype=np.uint32) + np.uint32(table << 24))
        values.append(np.array([f"{value:08x}" for value in scattered.tolist()]))
        weight = generator.normal(size=rows)
        weights.append(weight - probabilities[-1] @ weight)
        factors.append(generator.normal(size=(rows, 4)) / 2)
    order = generator.permutation(26).tolist()
    pairs = tuple((order[2 * index], order[2 * index + 1]) for index in range(6))
    return _Planted(
        probabilities=tuple(probabilities),
        values=tuple(values),
        weights=tuple(weights),
        factors=tuple(factors),
        pairs=pairs,
        slopes=generator.normal(size=13),
    )


def _chunk(planted: _Planted, log: GeneratedLog, number: int) -> list[str]:
    generator = np.random.default_rng([log.seed, 1, number])
    ids = [generator.choice(law.size, CHUNK_ROWS, p=law) for law in planted.probabilities]
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
    logits = offset + log.strength * mixed + log.noise * generator.normal(size=CHUNK_ROWS)
    labels = generator.random(CHUNK_ROWS) < 1 / (1 + np.exp(-logits))
    columns = [np.where(labels, "1", "0")]
    columns += [_with_gaps(counts[:, k].astype(str), log.missing, generator) for k in range(13)]
    for table, (values, column) in enumerate(zip(planted.values, ids, strict=True)):
        columns.append(_with_gaps(values[column], log.missing if table % 3 == 2 else 0.0, generator))
    return ["\t".join(row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """A permutation of the 32-bit integers (the finalizer of MurmurHash3), so that no two ids share a value."""
    with np.errstate(over="ignore"):
        numbers = (numbers ^ (numbers >> np.uint32(16))) * np.uint32(0x85EBCA6B)
        numbers = (numbers ^ (numbers >> np.uint32(13))) * np.uint32(0xC2B2AE35)
        mixed: np.ndarray = numbers ^ (numbers >> np.uint32(16))
    return mixed


def _with_gaps(values: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    gaps: np.ndarray = np.where(generator.random(values.size) < share, "", values)
    return gaps
