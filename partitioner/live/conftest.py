"""A model of three layers on integers that can be cut anywhere, and a cloud inside this process that runs its tails."""

from pathlib import Path

import numpy as np
import pytest

from edge_deploy.core.artifact import Signature
from edge_deploy.core.cut import ALL_CLOUD, ALL_EDGE
from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo
from partitioner.live.halves import EdgeHalf, Whole
from partitioner.live.pretend import PretendCloud
from runtimes.calling import check_inputs

X = TensorInfo(name="x", shape=(1, 4), dtype="float32")
MIDDLE = tuple(TensorInfo(name=name, shape=(1, 4), dtype="float32") for name in ("a", "b"))
Y = TensorInfo(name="y", shape=(1, 4), dtype="float32")
CHAIN = (X, *MIDDLE, Y)
NAMES = (ALL_CLOUD, "001-aaaaaa", "002-bbbbbb", ALL_EDGE)


def layer(place, values):
    return np.asarray(values * (place + 2) + 1, dtype=np.float32)


class FakeSession:
    """Runs layers `first` to `last`; remembers that it was closed."""

    kernels = "NumPy"

    def __init__(self, first, last):
        self.signature = Signature(name="main", inputs=(CHAIN[first],), outputs=(CHAIN[last],))
        self._first, self._last = first, last
        self.is_open = True

    def run(self, inputs):
        if not self.is_open:
            raise BadInput("closed")
        check_inputs(self.signature, inputs)
        values = inputs[CHAIN[self._first].name]
        for place in range(self._first, self._last):
            values = layer(place, values)
        return {CHAIN[self._last].name: values}

    def layer_seconds(self, inputs, *, runs):
        return None

    def close(self):
        self.is_open = False


class Model:
    """Everything that a session needs, and the answers it must give."""

    def __init__(self):
        signature = Signature(name="main", inputs=(X,), outputs=(Y,))
        self.whole = Whole(path=Path("model"), name="model", sha256="d" * 64, signature=signature, bytes=100)
        self.halves = tuple(self._half(place) for place in range(4))
        self.opened = []
        self.cloud = PretendCloud(
            tails={name: FakeSession(place, 3).run for place, name in enumerate(NAMES[:-1])},
            digest=self.whole.sha256,
        )

    def _half(self, place):
        if place == 0:
            return EdgeHalf(cut=ALL_CLOUD, head=None, signature=None, up=(X,), down=(Y,), bytes=0)
        signature = Signature(name="main", inputs=(X,), outputs=(CHAIN[place],))
        crosses = place < 3
        return EdgeHalf(
            cut=NAMES[place],
            head=Path(f"head{place}"),
            signature=signature,
            up=(CHAIN[place],) if crosses else (),
            down=(Y,) if crosses else (),
            bytes=30 * place if crosses else 100,
        )

    def open_half(self, half):
        session = FakeSession(0, NAMES.index(half.cut))
        self.opened.append(half.cut)
        return session

    def feed(self, number):
        return {"x": np.full((1, 4), number, dtype=np.float32)}

    def answer(self, number):
        return float(layer(2, layer(1, layer(0, np.float32(number)))))


@pytest.fixture
def model():
    return Model()
