"""Run `.pte` programs with the ExecuTorch runtime of the pip wheel: XNNPACK, portable and quantized kernels."""

from __future__ import annotations

import math
import tempfile
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge_deploy.core.artifact import Signature
from edge_deploy.core.errors import BadInput, Unsupported
from edge_deploy.core.require import require
from edge_deploy.core.tensor import TensorInfo
from edge_deploy.core.toolchain import versions
from runtimes.calling import check_inputs, pick_signature, zeros_for
from runtimes.contracts import Kernels
from runtimes.formats.nibble_ptd import inflate, is_packed
from runtimes.formats.pte import PteFile, PteTensor, read_pte
from runtimes.residency import Residency, residency_of
from runtimes.unlocked import without_locks

__all__ = ["ExecutorchSession", "kernels_name", "open_model", "open_session", "own_signatures", "runtime_version"]

_EXTRA = "run-executorch"
_SMALL_BYTES = 1 << 15
_open_threads: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()


def open_model(
    path: Path,
    *,
    data_files: tuple[Path, ...],
    known: tuple[Signature, ...],
    signature: str | None,
    threads: int,
    kernels: Kernels,
) -> ExecutorchSession:
    """Load a program in this process; see `runtimes.contracts.Backend`.

    Raises:
        BadInput: The file cannot be loaded, or has no such signature.
        Unsupported: Another kernel set than the only one is asked for.
    """
    found = known or own_signatures(read_pte(path))
    chosen = pick_signature(path, found, signature)
    if len(data_files) > 1:
        raise BadInput(f"{path}: ExecuTorch takes one data file, {len(data_files)} were given.")
    data = data_files[0] if data_files else None
    return open_session(path, signature=chosen, threads=threads, kernels=kernels, data=data)


def open_session(
    path: Path, *, signature: Signature, threads: int = 1, kernels: Kernels = "default", data: Path | None = None
) -> ExecutorchSession:
    """Load a program and the weights beside it.

    The thread pool belongs to the process: sessions that are open at the same time must ask for the same number.

    Args:
        data: A `.ptd`, stock or with packed 4-bit weights, which are inflated in memory.

    Raises:
        BadInput: A file cannot be loaded, or another open session has another number of threads.
        Unsupported: Another kernel set than the only one is asked for.
    """
    if kernels != "default":
        raise Unsupported(f"--kernels {kernels}: ExecuTorch has one kernel set here; take default.")
    load = _loader(path, data)
    _set_threads(threads)
    session = ExecutorchSession(load, signature, where=str(path), data=data)
    _open_threads[session] = threads
    return session


def kernels_name() -> str:
    """Runtime, version and kernel sets, e.g. "executorch 1.5.1 XNNPACK+portable"."""
    return f"executorch {versions('executorch').get('executorch', 'unknown')} XNNPACK+portable"


def runtime_version() -> tuple[str, str]:
    """The package that runs programs, and its version."""
    return "executorch", versions("executorch").get("executorch", "")


def _loader(path: Path, data: Path | None) -> Callable[[bool], Any]:
    """A function that loads the program, with or without event tracing."""
    runtime = require("executorch.extension.pybindings.portable_lib", extra=_EXTRA)
    # Without this import the runtime has no quantized embeddings and fails in load_method.
    require("executorch.kernels.quantized", extra=_EXTRA)
    try:
        is_mapped = data is not None and not is_packed(data)
        program = path.read_bytes()
        weights = inflate(data.read_bytes(), where=str(data)) if data is not None and not is_mapped else None
    except OSError as error:
        raise BadInput(f"{error.filename}: cannot be read ({error.strerror}).") from error

    def load(traced: bool) -> Any:
        options = {"enable_etdump": True} if traced else {}
        try:
            if is_mapped:  # tables: what is looked up is read, and no more
                return runtime._load_for_executorch(str(path), str(data), **options)
            return runtime._load_for_executorch_from_buffer(program, weights, **options)
        except RuntimeError as error:
            raise BadInput(f"{path}: ExecuTorch cannot load it ({error}).") from error

    return load


def _set_threads(threads: int) -> None:
    runtime = require("executorch.extension.pybindings.portable_lib", extra=_EXTRA)
    if threads < 1:
        raise BadInput(f"--threads {threads}: must be at least 1.")
    others = {count for session, count in _open_threads.items() if session.is_open} - {threads}
    if others:
        # XNNPACK keeps a pointer to the pool it was loaded with; replacing the pool under it would crash.
        raise BadInput(
            f"--threads {threads}: another ExecuTorch session of this process runs with {others.pop()}; "
            "close it first, or use another process."
        )
    if runtime._threadpool_get_thread_count() != threads:
        runtime._unsafe_reset_threadpool(threads)


class ExecutorchSession:
    """A loaded program; see `runtimes.contracts.Session`.

    Answers are copies and stay as they are. Inputs go through tensors that the session keeps: one call at a time.
    """

    def __init__(
        self, load: Callable[[bool], Any], signature: Signature, *, where: str, data: Path | None = None
    ) -> None:
        self.signature = signature
        self.kernels = kernels_name()
        self.is_open = True
        self._residency: Residency | None = None
        torch = require("torch", extra=_EXTRA)
        self._load = load
        self._where = where
        with without_locks():
            self._prepare(torch, signature)
            self._load_method()
        self._residency = None if data is None else residency_of(data)

    def _prepare(self, torch: Any, signature: Signature) -> None:
        """Look at the program, and make what its inputs travel through."""
        where = self._where
        module = self._load(False)
        try:
            methods = list(module.method_names())
        except RuntimeError as error:  # the program is looked at no sooner than here
            raise BadInput(f"{where}: ExecuTorch cannot load it ({error}).") from error
        self._method = signature.name if signature.name in methods else "forward"
        if self._method not in methods:
            raise BadInput(f"{where}: has methods {', '.join(methods)} and no {signature.name!r}.")
        self._run: Callable[..., Any] | None = module.run_method
        self._from_numpy = torch.from_numpy
        self._tensors_in: list[Any] = []
        self._copied: list[tuple[str, np.dtype, tuple[int, ...], np.ndarray]] = []
        self._shared: list[tuple[int, str, np.dtype, tuple[int, ...]]] = []
        for place, info in enumerate(signature.inputs):
            self._tensors_in.append(self._slot(torch, place, info))
        self._outputs = tuple(info.name for info in signature.outputs)
        self._check_border(module)

    def _slot(self, torch: Any, place: int, info: TensorInfo) -> Any:
        """A tensor to copy an input into; None where sharing the array's memory costs less, or its shape may differ."""
        dtype = np.dtype(info.dtype)
        if -1 in info.shape or math.prod(info.shape) * dtype.itemsize > _SMALL_BYTES:
            self._shared.append((place, info.name, dtype, info.shape))
            return None
        buffer = np.zeros(info.shape, dtype)
        self._copied.append((info.name, dtype, info.shape, buffer))
        return torch.from_numpy(buffer)

    def _check_border(self, module: Any) -> None:
        try:
            meta = module.method_meta(self._method)
        except RuntimeError as error:
            raise BadInput(f"{self._where}: method {self._method!r} cannot be read ({error}).") from error
        counts = (meta.num_inputs(), meta.num_outputs())
        wanted = (len(self._tensors_in), len(self._outputs))
        if counts != wanted:
            raise BadInput(f"{self._where}: takes {counts[0]} inputs and gives {counts[1]} outputs, expected {wanted}.")

    def _load_method(self) -> None:
        """Run once on zeros: the runtime loads a method, and finds its weights missing, on the first call only."""
        assert self._run is not None
        try:
            self._run(self._method, self._tensors(zeros_for(self.signature)))
        except RuntimeError as error:
            self.close()
            missing = _foreign_delegates(Path(self._where))
            if missing:
                raise Unsupported(
                    f"{self._where}: is delegated to {', '.join(missing)}, which the ExecuTorch runtime here does not "
                    "have; run it on a device whose runtime was built with it."
                ) from error
            raise BadInput(
                f"{self._where}: ExecuTorch cannot load method {self._method!r} ({error}); it needs other kernels, "
                "a .ptd beside it, or is damaged."
            ) from error

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One inference; arrays in another memory order, such as channels-last views, are copied into C order.

        Raises:
            BadInput: An input is missing, unknown, or of another shape or type; or the session is closed.
        """
        run = self._run
        if run is None:
            raise BadInput(f"{self._where}: the session is closed; open another.")
        tensors = self._tensors(inputs)
        found = {}
        try:
            # The runtime's own copies of the outputs cost twice as much as NumPy's.
            for name, result in zip(self._outputs, run(self._method, tensors, False)):  # noqa: B905  # compared before
                found[name] = result.numpy().copy()
            if self._residency is not None:
                self._residency.ran()
        except RuntimeError as error:
            raise BadInput(f"{self._where}: ExecuTorch refused the inputs ({error}).") from error
        return found

    def _tensors(self, inputs: Mapping[str, np.ndarray]) -> list[Any]:
        """Inputs as C-ordered tensors.

        ExecuTorch reads the bytes in C order whatever the strides say, and would take a channels-last image for NCHW.
        Small arrays are copied into tensors made once, which is the fastest way in. What does not fit at the first
        look takes the slow way, where what is wrong is said.
        """
        if len(inputs) != len(self._tensors_in):
            return self._slow_tensors(inputs)
        try:
            for name, dtype, shape, buffer in self._copied:
                array = inputs[name]
                if array.dtype is not dtype or array.shape != shape:
                    return self._slow_tensors(inputs)
                buffer[...] = array
            if not self._shared:
                return self._tensors_in
            tensors = list(self._tensors_in)
            for place, name, dtype, shape in self._shared:
                array = inputs[name]
                if array.dtype is not dtype or array.shape != shape:
                    return self._slow_tensors(inputs)
                tensors[place] = self._from_numpy(_plain(array))
        except (KeyError, AttributeError):
            return self._slow_tensors(inputs)
        return tensors

    def _slow_tensors(self, inputs: Mapping[str, np.ndarray]) -> list[Any]:
        """The same for dynamic shapes, and the place where what is wrong is said."""
        check_inputs(self.signature, inputs)
        return [self._from_numpy(_plain(inputs[info.name])) for info in self.signature.inputs]

    def layer_seconds(self, inputs: Mapping[str, np.ndarray], *, runs: int) -> dict[str, float] | None:
        """Mean seconds per layer over `runs` traced inferences; delegated operators resolve to a microsecond.

        Names are those of `runtimes.formats.pte.read_facts` where an event can be matched, else the event's own.
        Tracing slows small models down: use the shares, not the sum.
        """
        from runtimes.executorch_trace import layer_seconds

        tensors = self._tensors(inputs)
        with without_locks():
            module = self._load(True)
            module.run_method(self._method, tensors)  # the first one allocates and does not count
        for _ in range(runs):
            module.run_method(self._method, tensors)
        with tempfile.TemporaryDirectory(prefix="edge-deploy-trace-") as folder:
            trace = Path(folder, "trace.etdp")
            module.write_etdump_result_to_file(str(trace), str(Path(folder, "debug.bin")))
            found: dict[str, float] = layer_seconds(trace, read_pte(Path(self._where)))
        return found

    def close(self) -> None:
        """Free the model."""
        if self._residency is not None:
            self._residency.close()
            self._residency = None
        self._run = None
        self.is_open = False


def _plain(array: np.ndarray) -> np.ndarray:
    """The array itself if torch can share its memory, else a copy in C order."""
    flags = array.flags
    if flags.c_contiguous and flags.writeable and array.dtype.isnative:
        return array
    return np.array(array, dtype=array.dtype.newbyteorder("="), order="C")


def own_signatures(file: PteFile) -> tuple[Signature, ...]:
    """One for each method; tensors have no names in the file."""
    return tuple(
        Signature(
            name=method.name,
            inputs=tuple(_info(f"input_{index}", tensor) for index, tensor in enumerate(method.inputs)),
            outputs=tuple(_info(f"output_{index}", tensor) for index, tensor in enumerate(method.outputs)),
        )
        for method in sorted(file.methods, key=lambda method: method.name != "forward")
    )


def _info(name: str, tensor: PteTensor) -> TensorInfo:
    shape = tensor.shape
    if tensor.is_dynamic and shape:
        shape = (-1, *shape[1:])  # the file keeps upper bounds only; what we write is dynamic in the batch
    try:
        return TensorInfo(name=name, shape=shape, dtype=np.dtype(tensor.dtype).name)  # type: ignore[arg-type]
    except TypeError as error:
        raise BadInput(
            f"{name}: type {tensor.dtype} has no NumPy counterpart; this file cannot be run here."
        ) from error


def _foreign_delegates(path: Path) -> tuple[str, ...]:
    """Delegates of the file that ExecuTorch's Python package does not bring along."""
    try:
        found = dict.fromkeys(name for name, _ in read_pte(path).main.delegates)
    except BadInput:
        return ()
    return tuple(name for name in found if name != "XnnpackBackend")
