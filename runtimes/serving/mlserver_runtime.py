"""The runtime class that MLServer loads our artifacts with: `runtimes.serving.mlserver_runtime.EdgeDeployModel`.

`edge-deploy export-repository --layout mlserver` names it in the folder that it writes. The class is made when it is
asked for: MLServer, which it derives from, lives in an environment of its own.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from edge_deploy.core.errors import BadInput, EdgeDeployError, MissingExtra
from runtimes.serving.batching import Turns
from runtimes.serving.errors import CloudOverloaded
from runtimes.serving.offers import ANY, Offer, read_offer
from runtimes.serving.shelf import Loading, Shelf
from runtimes.serving.tensors import datatype, fits, holder

__all__ = ["read_payload"]

ANSWER_S = 60.0
NAME = "EdgeDeployModel"


def __getattr__(name: str) -> Any:
    if name == NAME:
        return _model_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def read_payload(payload: Any, offer: Offer) -> tuple[dict[str, np.ndarray], int]:
    """Arrays of a request as the session takes them, and how many rows they have.

    Args:
        payload: MLServer's `InferenceRequest`.

    Raises:
        BadInput: Other inputs than the model's, or of another type or shape.
    """
    sent = {each.name: each for each in payload.inputs}
    known = {info.name for info in offer.info.inputs}
    problems = [f"input {name}: {offer.info.name} has none of this name." for name in sent if name not in known]
    arrays = {}
    for info in offer.info.inputs:
        each = sent.get(info.name)
        if each is None or str(getattr(each.datatype, "value", each.datatype)) != datatype(info.dtype):
            problems.append(f"input {info.name}: must be there, as {datatype(info.dtype)}.")
            continue
        values = np.array(getattr(each.data, "root", each.data), dtype=holder(info.dtype))
        if not fits(each.shape, info) or values.size != int(np.prod(each.shape)):
            found = f"{values.size} values, shape {list(each.shape)}"
            problems.append(f"input {info.name}: {found}, must be {list(info.shape)}.")
            continue
        arrays[info.name] = values.reshape(each.shape)
    if problems:
        raise BadInput(*problems)
    takes_rows = ANY in offer.batches or len(offer.batches) > 1
    counts = {len(array) for array in arrays.values()} if takes_rows else {1}
    if len(counts) != 1:
        raise BadInput(f"inputs: have {', '.join(map(str, sorted(counts)))} rows; all must have the same number.")
    return arrays, counts.pop()


@cache
def _model_class() -> Any:
    try:
        mlserver, types = importlib.import_module("mlserver"), importlib.import_module("mlserver.types")
        errors, find = (
            importlib.import_module("mlserver.errors"),
            importlib.import_module("mlserver.utils").get_model_uri,
        )
    except ModuleNotFoundError as error:
        # No extra of ours: its pins and ours do not go together.
        raise MissingExtra("mlserver is not installed: pip install mlserver, in an environment of its own.") from error

    class EdgeDeployModel(mlserver.MLModel):  # type: ignore[misc, name-defined]  # known where MLServer is only
        """One artifact, whole or tail, under MLServer; settings of `Loading` are taken from `parameters.extra`."""

        async def load(self) -> bool:
            """Check the artifact's files and load it."""
            folder = Path(await find(self.settings))
            extra = self.settings.parameters.extra or {}
            loading = replace(Loading(), **json.loads(json.dumps(extra.get("loading", {}))))
            self._threads = ThreadPoolExecutor((os.cpu_count() or 1) + 1)
            offer = read_offer(folder)
            # By the name that MLServer knows it by, which is not necessarily ours.
            self._offer = replace(offer, info=replace(offer.info, name=self.settings.name))
            self._shelf = Shelf([self._offer], loading, threads=self._threads, turns=Turns(os.cpu_count() or 1))
            await self._shelf.load(self._offer)
            return True

        async def predict(self, payload: Any) -> Any:
            """One request."""
            try:
                arrays, rows = read_payload(payload, self._offer)
                deadline_s = asyncio.get_running_loop().time() + ANSWER_S
                found = await self._shelf.infer(self._offer, arrays, rows=rows, deadline_s=deadline_s)
            except BadInput as error:
                raise errors.MLServerError(str(error), 400) from error
            except CloudOverloaded as error:
                raise errors.MLServerError(str(error), 503) from error
            except EdgeDeployError as error:
                raise errors.MLServerError(str(error), 500) from error
            outputs = [
                types.ResponseOutput(
                    name=info.name,
                    datatype=datatype(info.dtype),
                    shape=list(found[info.name].shape),
                    data=types.TensorData(root=found[info.name].reshape(-1).tolist()),
                )
                for info in self._offer.info.outputs
            ]
            return types.InferenceResponse(
                id=payload.id, model_name=self.name, model_version=self.version, outputs=outputs
            )

        async def unload(self) -> bool:
            """Free it."""
            await self._shelf.close()
            self._threads.shutdown(wait=False)
            return True

    EdgeDeployModel.__module__, EdgeDeployModel.__qualname__ = __name__, NAME
    return EdgeDeployModel
