"""Source of a host in C++17 beside an artifact whose file alone is not enough: raw features, packed weights.

What ROBE and hot rows need is part of the graph in both formats; raw rows still have to become ids and numbers, and
4-bit weights beside a `.pte` bytes. Where an artifact has either, `host/` in its folder holds C99 for the features
with its self-test on the golden rows, C++17 for the rest, and how to compile them.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from edge_deploy.api.phone.model_spec import at_one_sample, counts_header, spec_source, vectors_header
from edge_deploy.core.artifact import Artifact, FileEntry, Signature
from edge_deploy.core.digest import file_sha256
from edge_deploy.core.errors import Unsupported
from edge_deploy.core.features import FeatureSpec
from runtimes.formats.nibble_ptd import is_packed

__all__ = ["HOST", "write_host_code"]

HOST = "host"
MOST_WORDS = 200_000  # about 10 MB of source, which compilers still take
ENGINES = {"tflite": "litert_engine.cpp", "executorch": "executorch_engine.cpp"}
LIBRARIES = {
    "tflite": "-I. -L$LITERT -lLiteRt",
    "executorch": "-DC10_USING_CUSTOM_GENERATED_MACROS -I. -isystem $EXECUTORCH/include -isystem "
    "$EXECUTORCH/include/executorch/runtime/core/portable_type/c10 -L$EXECUTORCH/lib -Wl,--no-as-needed -lexecutorch "
    "-lexecutorch_kernels_optimized -lexecutorch_kernels_quantized -lexecutorch_backend_xnnpack "
    "-lexecutorch_threadpool",
}
WHERE = {"tflite": "LITERT: the folder ai_edge_litert of the wheel", "executorch": "EXECUTORCH: that of its wheel"}


def write_host_code(artifact: Artifact, folder: Path, features: FeatureSpec | None) -> Artifact:
    """Write `folder/host` where the model file is not enough; the artifact with those files, or with why not.

    Args:
        features: How raw rows become inputs; None where they do not.
    """
    if artifact.format not in ENGINES or artifact.split is not None:
        return artifact
    words = (
        0 if features is None else sum(len(each.vocabulary.values) for each in features.categorical if each.vocabulary)
    )
    if words > MOST_WORDS:
        note = f"no host/ beside it: its vocabularies of {words} values are too long for C source; read features.json"
        return replace(artifact, warnings=(*artifact.warnings, note))
    return replace(artifact, files=(*artifact.files, *_written(artifact, folder, features)))


def _written(artifact: Artifact, folder: Path, features: FeatureSpec | None) -> tuple[FileEntry, ...]:
    packed = [entry for entry in artifact.files if entry.role == "data" and is_packed(folder / entry.path)]
    if features is None and not packed:
        return ()
    try:
        signature = at_one_sample(artifact.signatures[0])
        texts = {
            "model_spec.c": spec_source(artifact, signature, features),
            "model_counts.h": counts_header(artifact, signature, features),
            "selftest_vectors.h": vectors_header(artifact, signature, features),
            "host_call.h": _call(signature),
            "README.md": _readme(artifact, features is not None),
        }
    except Unsupported:
        return ()  # inputs that take more than one sample, or a type that C does not carry
    place = folder / HOST
    place.mkdir()
    here = Path(__file__).parent
    runners = _runners()
    for name in ("model_io.c", "model_io.h", "model_spec.h", "selftest.c"):
        shutil.copyfile(here / "phone" / name, place / name)
    shutil.copyfile(here / "host" / "host.cpp", place / "host.cpp")
    for name in ("engine.h", "packed_weights.h", ENGINES[artifact.format]):
        shutil.copyfile(runners / name, place / name)
    for name, text in texts.items():
        (place / name).write_text(text, encoding="utf-8")
    return tuple(
        FileEntry(path=f"{HOST}/{path.name}", role="other", bytes=path.stat().st_size, sha256=file_sha256(path))
        for path in sorted(place.iterdir())
    )


def _runners() -> Path:
    import runtimes.runners

    return Path(next(iter(runtimes.runners.__path__)))


def _call(signature: Signature) -> str:
    shapes = ",\n    ".join("{" + ", ".join(map(str, info.shape)) + "}" for info in signature.inputs)
    return (
        "// Written by edge-deploy from the manifest.\n"
        f'#define EDGE_METHOD "{signature.name}"\n'
        f"static const std::vector<std::vector<int64_t>> edge_input_shapes = {{\n    {shapes}}};\n"
    )


def _readme(artifact: Artifact, has_features: bool) -> str:
    rows = (
        "`model_io.c` makes inputs of a raw row; `selftest.c` holds it against the golden rows of features.json:\n\n"
        "    cc -std=c99 -O2 selftest.c model_io.c model_spec.c -lm -o selftest && ./selftest\n\n"
        if has_features
        else ""
    )
    data = "".join(f" ../{entry.path}" for entry in artifact.files if entry.role == "data")
    return (
        f"# A host of {artifact.name}\n\n{rows}"
        f"`host.cpp` runs the model ({WHERE[artifact.format]}):\n\n"
        "    cc -std=c99 -O2 -c model_io.c model_spec.c\n"
        f"    c++ -std=c++17 -O2 host.cpp {ENGINES[artifact.format]} model_io.o model_spec.o "
        f"{LIBRARIES[artifact.format]} -pthread -lm -o host\n"
        f"    ./host{'' if has_features else ' --raw'} ../{artifact.model_file.path}{data} < input\n"
    )
