"""A loaded TensorFlow model as one float TFLite file: a signature for each batch size, all sharing the weights."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any, Protocol

from converters.tflite.readable_names import rename_layers
from edge_deploy.core.errors import Refusal, ToolchainError, Unsupported
from edge_deploy.core.require import require
from edge_deploy.core.tensor import TensorInfo

__all__ = ["SINGLE_SIGNATURE", "Exportable", "export_tflite", "signature_name"]

SINGLE_SIGNATURE = "serving_default"


class Exportable(Protocol):
    """A model in memory that TensorFlow can trace."""

    @property
    def output_names(self) -> tuple[str, ...]:
        """One for each output, unique."""

    @property
    def variables(self) -> tuple[Any, ...]:
        """The TensorFlow variables that hold its weights; empty where they are constants of the graph."""

    @property
    def layer_names(self) -> tuple[str, ...]:
        """The source's own names of its layers; empty where it has none."""

    def call(self, arrays: list[Any]) -> list[Any]:
        """The outputs for inputs in call order, in inference mode."""


def signature_name(batch: int, batches: tuple[int, ...]) -> str:
    """Name of the signature that serves `batch`, e.g. "batch_64"; "serving_default" when there is only one."""
    return SINGLE_SIGNATURE if len(batches) == 1 else f"batch_{batch}"


def export_tflite(loaded: Exportable, inputs: tuple[TensorInfo, ...], batches: tuple[int, ...], path: Path) -> None:
    """Write the float TFLite file.

    Args:
        inputs: Settled inputs; dimension 0 is replaced by each of `batches`.

    Raises:
        Unsupported: The model needs operators that TFLite does not have, by name.
        ToolchainError: The converter failed for another reason.
    """
    tf = require("tensorflow", extra="export-tflite")

    def call(*arrays: Any) -> dict[str, Any]:
        return dict(zip(loaded.output_names, loaded.call(list(arrays)), strict=True))

    holder = tf.Module()
    # The converter folds only variables that the saved object owns.
    holder.owned = list(loaded.variables)
    signatures = {}
    for batch in batches:
        specs = [tf.TensorSpec((batch, *info.shape[1:]), info.dtype, name=info.name) for info in inputs]
        signatures[signature_name(batch, batches)] = tf.function(call).get_concrete_function(*specs)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        try:
            tf.saved_model.save(holder, folder, signatures=signatures)
            converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(signatures))
            content = converter.convert()
        except Exception as error:
            missing = sorted(set(re.findall(r"'(tf\.[\w.]+)' op is neither", str(error))))
            if not missing:
                raise ToolchainError(
                    f"tensorflow {tf.__version__}: conversion to TFLite: {type(error).__name__}: {str(error)[:1000]}"
                ) from error
            refusals = tuple(
                Refusal(layer=name, op=name, reason="TFLite has no such builtin operator") for name in missing
            )
            raise Unsupported("The model cannot become TFLite.", refusals=refusals) from error
    path.write_bytes(content)
    rename_layers(path, layers=loaded.layer_names)
