"""Every request as a row of a Parquet file, written in row groups while simulations go on."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from edge_deploy.core.require import require
from partitioner.simulator.simulate import PARTS, Served

__all__ = ["HOW", "RequestWriter", "can_write"]

HOW = ("open", "edge", "cloud", "fallback", "lost")
ROWS = 131_072


def can_write() -> bool:
    """Whether pyarrow is installed (extra `simulate`)."""
    return importlib.util.find_spec("pyarrow") is not None


class RequestWriter:
    """A file that appears under its name when the `with` block ends well.

    Columns: trace, policy, arrival_s, cut, how, one `<part>_s` a part, latency_s. Parts add up to the latency.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.partial = path.with_name(f".{path.name}.partial")
        self.arrow: Any = require("pyarrow", extra="simulate")
        self.parquet: Any = require("pyarrow.parquet", extra="simulate")
        self.writer: Any = None
        self.rows = 0

    def __enter__(self) -> RequestWriter:
        return self

    def write(self, trace: str, served: Served) -> None:
        """Append all requests of one simulation."""
        for start in range(0, len(served.arrival_s), ROWS):
            table = self._rows(trace, served, slice(start, start + ROWS))
            if self.writer is None:
                self.writer = self.parquet.ParquetWriter(self.partial, table.schema, compression="zstd")
            self.writer.write_table(table)
            self.rows += table.num_rows

    def _rows(self, trace: str, served: Served, part: slice) -> Any:
        count = len(served.arrival_s[part])
        columns: dict[str, Any] = {
            "trace": self._words((trace,), np.zeros(count, dtype=np.int32)),
            "policy": self._words((served.name,), np.zeros(count, dtype=np.int32)),
            "arrival_s": served.arrival_s[part],
            "cut": self._words(served.table.cuts, served.cut[part].astype(np.int32)),
            "how": self._words(HOW, served.how[part].astype(np.int32)),
        }
        columns |= {f"{name}_s": served.parts_s[row, part] for row, name in enumerate(PARTS)}
        columns["latency_s"] = served.latency_s[part]
        return self.arrow.table(columns)

    def _words(self, words: tuple[str, ...], index: np.ndarray) -> Any:
        return self.arrow.DictionaryArray.from_arrays(self.arrow.array(index), self.arrow.array(list(words)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.writer is not None:
            self.writer.close()
            if kind is None:
                self.partial.replace(self.path)
            else:
                self.partial.unlink(missing_ok=True)
