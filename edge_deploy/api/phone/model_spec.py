"""The C tables of one artifact: its inputs, outputs, feature encoding and pixels, and vectors that test them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from edge_deploy.core.artifact import Artifact, Signature
from edge_deploy.core.errors import Unsupported
from edge_deploy.core.features import Categorical, Dense, FeatureSpec, encode_rows
from edge_deploy.core.tensor import TensorInfo, encode_input

__all__ = ["at_one_sample", "counts_header", "image_input", "spec_source", "vectors_header"]

TYPES = {
    "float32": "EDGE_FLOAT32",
    "int8": "EDGE_INT8",
    "uint8": "EDGE_UINT8",
    "int32": "EDGE_INT32",
    "int64": "EDGE_INT64",
}
TRANSFORMS = {"identity": "EDGE_IDENTITY", "log1p": "EDGE_LOG1P", "signed-log1p": "EDGE_SIGNED_LOG1P"}
LARGEST_MODULUS = 1 << 59  # sixteen times it still fits 64 bits
MOST_TEST_PIXELS = 256
MOST_TEST_ROWS = 32


def at_one_sample(signature: Signature) -> Signature:
    """The signature with one sample in the place of a dynamic batch.

    Raises:
        Unsupported: Another dimension is dynamic, a type is none that the C code carries, or it takes more samples.
    """

    def fixed(info: TensorInfo) -> TensorInfo:
        shape = tuple(1 if axis == 0 and size == -1 else size for axis, size in enumerate(info.shape))
        return replace(info, shape=shape)

    made = replace(
        signature,
        inputs=tuple(fixed(info) for info in signature.inputs),
        outputs=tuple(fixed(info) for info in signature.outputs),
    )
    problems = [
        f"{info.name}: shape {info.shape}: must have no other dynamic dimension than the batch."
        for info in (*made.inputs, *made.outputs)
        if -1 in info.shape
    ]
    problems += [
        f"{info.name}: type {info.dtype}: must be one of {', '.join(TYPES)}."
        for info in (*made.inputs, *made.outputs)
        if info.dtype not in TYPES
    ]
    if problems:
        raise Unsupported(*(f"phone package: {problem}" for problem in problems))
    return made


def image_input(artifact: Artifact, signature: Signature) -> tuple[TensorInfo, TensorInfo] | None:
    """The image input as the source takes it and as the artifact takes it; None where there is none."""
    if len(signature.inputs) != 1 or artifact.kind == "recommender":
        return None
    target = signature.inputs[0]
    source = next((info for info in artifact.source_inputs if info.name == target.name), None)
    if source is None or len(target.shape) != 4 or target.layout is None or source.layout is None:
        return None
    return source, target


def counts_header(artifact: Artifact, signature: Signature, features: FeatureSpec | None) -> str:
    """`model_counts.h`: sizes that arrays need."""
    most = max(_bytes(info) for info in signature.outputs)
    pixels = math.prod(signature.inputs[0].shape) if image_input(artifact, signature) else 0
    values = {
        "EDGE_DENSE_COUNT": len(features.dense) if features else 0,
        "EDGE_CATEGORY_COUNT": len(features.categorical) if features else 0,
        "EDGE_IMAGE_PIXELS": pixels,
        "EDGE_MOST_OUTPUT_BYTES": most,
    }
    lines = [f"#define {name} {value}" for name, value in values.items()]
    return "\n".join(
        [
            "/* Written by edge-deploy. */",
            "#ifndef EDGE_MODEL_COUNTS_H",
            "#define EDGE_MODEL_COUNTS_H",
            *lines,
            "#endif",
            "",
        ]
    )


def spec_source(artifact: Artifact, signature: Signature, features: FeatureSpec | None) -> str:
    """`model_spec.c`.

    Raises:
        Unsupported: A vocabulary holds what C cannot, or a feature's numbers are too large.
    """
    names = [info.name for info in signature.inputs]
    image = image_input(artifact, signature)
    parts = ['/* Written by edge-deploy from the manifest. */\n#include "model_spec.h"\n']
    for kind, infos in (("input", signature.inputs), ("output", signature.outputs)):
        rows = ",\n    ".join(_tensor(info) for info in infos)
        parts.append(
            f"const edge_tensor edge_{kind}s[] = {{\n    {rows}}};\nconst int edge_{kind}_count = {len(infos)};\n"
        )
    labels = _labels(artifact, signature)
    parts.append(f"const char *const edge_labels[] = {{{', '.join(map(_text, labels)) or '0'}}};")
    parts.append(f"const int edge_label_count = {len(labels)};\n")
    logits = ", ".join(str(int(_is_logit(artifact, place))) for place in range(len(signature.outputs)))
    parts.append(f"const int edge_output_is_logit[] = {{{logits}}};\n")
    parts.append(_features(features, names))
    parts.append(_image(image))
    return "\n".join(parts)


def vectors_header(artifact: Artifact, signature: Signature, features: FeatureSpec | None) -> str:
    """`selftest_vectors.h`: raw rows and pixels with what Python makes of them."""
    parts = ["/* Written by edge-deploy: computed in Python. */\n#include <stdint.h>\n"]
    rows = [row.raw for row in features.golden][:MOST_TEST_ROWS] if features else []
    parts.append(f"#define EDGE_TEST_ROWS {len(rows)}")
    if features and rows:
        dense, ids = encode_rows(features, rows)
        fields = ",\n    ".join("{" + ", ".join(map(_text, row)) + "}" for row in rows)
        parts.append(f"static const char *const test_fields[][{len(features.fields)}] = {{\n    {fields}}};")
        for name, kind, table in (("dense", "double", dense.astype(float)), ("ids", "int64_t", ids)):
            lines = ",\n    ".join(
                "{" + (", ".join(repr(value) for value in row) or "0") + "}" for row in table.tolist()
            )
            parts.append(f"static const {kind} test_{name}[][{max(1, table.shape[1])}] = {{\n    {lines}}};")
    image = image_input(artifact, signature)
    if image is None:
        parts.append("#define EDGE_TEST_PIXELS 0\n")
        return "\n".join(parts)
    source, target = image
    height, width, channels = _image_shape(target)
    pixels = _sequence(height * width * channels).reshape(1, height, width, channels).astype(np.float32)
    mean, std = _mean_std(source, channels)
    values = ((pixels - np.array(mean)) / np.array(std)).astype(np.float32)
    encoded = encode_input(values, source=replace(source, layout="NHWC"), target=target).ravel()
    places = np.unique(np.linspace(0, len(encoded) - 1, MOST_TEST_PIXELS).astype(int))
    parts.append(f"#define EDGE_TEST_PIXELS {len(places)}")
    parts.append(f"static const int test_places[] = {{{', '.join(map(str, places))}}};")
    parts.append(f"static const double test_values[] = {{{', '.join(repr(float(encoded[k])) for k in places)}}};\n")
    return "\n".join(parts)


def _sequence(count: int) -> np.ndarray:
    found = np.empty(count, np.uint8)
    x = 1
    for index in range(count):
        x = (x * 1103515245 + 12345) & 0x7FFFFFFF
        found[index] = x >> 16 & 0xFF
    return found


def _tensor(info: TensorInfo) -> str:
    scale, zero = (info.scale[0], info.zero_point[0]) if info.scale else (0.0, 0)
    count = math.prod(info.shape)
    return f"{{{_text(info.name)}, {TYPES[info.dtype]}, {count}, {_bytes(info)}, {scale!r}, {zero}}}"


def _bytes(info: TensorInfo) -> int:
    return math.prod(info.shape) * np.dtype(info.dtype).itemsize


def _labels(artifact: Artifact, signature: Signature) -> tuple[str, ...]:
    return signature.outputs[0].labels or artifact.source_outputs[0].labels


def _is_logit(artifact: Artifact, place: int) -> bool:
    target, source = artifact.signatures[0].outputs[place], artifact.source_outputs[place]
    return target.meaning == "logit" and source.meaning == "probability"


def _features(features: FeatureSpec | None, names: list[str]) -> str:
    column = {name: index for index, name in enumerate(features.fields)} if features else {}
    dense = [_dense(each, column) for each in features.dense] if features else []
    words, categories = [], []
    for index, each in enumerate(features.categorical if features else ()):
        if each.vocabulary is not None and each.vocabulary.values:
            words.append(_words(each, index))
        categories.append(_category(each, column, index))
    places = {
        "edge_field_count": len(column),
        "edge_dense_count": len(dense),
        "edge_category_count": len(categories),
        "edge_dense_input": names.index(features.dense_input) if features and features.dense_input in names else 0,
        "edge_ids_input": names.index(features.ids_input) if features and features.ids_input in names else 0,
    }
    lines = [*words, "const edge_dense edge_dense_table[] = {"]
    lines += [f"    {row}," for row in dense or ["{0, EDGE_IDENTITY, 0, 0, 1}"]]
    lines += ["};", "const edge_category edge_category_table[] = {"]
    lines += [f"    {row}," for row in categories or ["{0, EDGE_DIRECT, 1, 1, 0, 0, 0, 0, 0, 0}"]]
    lines += ["};", *(f"const int {name} = {value};" for name, value in places.items()), ""]
    return "\n".join(lines)


def _dense(feature: Dense, column: dict[str, int]) -> str:
    numbers = f"{feature.missing!r}, {feature.mean!r}, {feature.std!r}"
    return f"{{{column[feature.field]}, {TRANSFORMS[feature.transform]}, {numbers}}}"


def _category(feature: Categorical, column: dict[str, int], index: int) -> str:
    field, hashed, vocabulary = column[feature.field], feature.hashed, feature.vocabulary
    ends = f"{feature.missing_id}, {feature.unseen_id}"
    if hashed is not None:
        if hashed.modulus > LARGEST_MODULUS:
            raise Unsupported(f"feature {feature.field}: modulus {hashed.modulus}: must be at most {LARGEST_MODULUS}.")
        kind = "EDGE_HEX" if hashed.algorithm == "hex-integer" else "EDGE_BLAKE2B"
        numbers = f"{feature.rows}u, {hashed.modulus}u, {hashed.seed}u, {hashed.first_id}"
        return f"{{{field}, {kind}, {numbers}, {ends}, 0, 0}}"
    if vocabulary is not None:
        words = f"words_{index}, {len(vocabulary.values)}" if vocabulary.values else "0, 0"
        return f"{{{field}, EDGE_VOCABULARY, {feature.rows}u, 1, 0, {vocabulary.first_id}, {ends}, {words}}}"
    return f"{{{field}, EDGE_DIRECT, {feature.rows}u, 1, 0, 0, {ends}, 0, 0}}"


def _words(feature: Categorical, index: int) -> str:
    assert feature.vocabulary is not None
    first = feature.vocabulary.first_id
    # Where a value stands twice the last one counts, as in Python.
    ids = {value: first + place for place, value in enumerate(feature.vocabulary.values)}
    rows = sorted((value.encode(), number) for value, number in ids.items())
    if any(b"\0" in text for text, _ in rows):
        raise Unsupported(f"feature {feature.field}: a value holds a zero byte, which C texts cannot.")
    filler = [("\\377", 0)] * (len(feature.vocabulary.values) - len(rows))
    lines = [f"    {{{_literal(text)}, {number}}}," for text, number in rows]
    lines += [f'    {{"{text}", {number}}},' for text, number in filler]
    return "\n".join([f"static const edge_word words_{index}[] = {{", *lines, "};"])


def _image(image: tuple[TensorInfo, TensorInfo] | None) -> str:
    height = width = channels = first = 0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    if image is not None:
        source, target = image
        height, width, channels = _image_shape(target)
        first = int(target.layout == "NCHW")
        mean, std = _mean_std(source, channels)
    return "\n".join(
        [
            f"const int edge_image_height = {height}, edge_image_width = {width}, edge_image_channels = {channels};",
            f"const int edge_image_input = 0, edge_image_channels_first = {first};",
            f"const double edge_image_mean[] = {{{', '.join(map(repr, mean))}}};",
            f"const double edge_image_std[] = {{{', '.join(map(repr, std))}}};",
            "",
        ]
    )


def _image_shape(target: TensorInfo) -> tuple[int, int, int]:
    _, *rest = target.shape
    height, width, channels = rest if target.layout == "NHWC" else (rest[1], rest[2], rest[0])
    return height, width, channels


def _mean_std(source: TensorInfo, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    mean, std = source.mean or (0.0,), source.std or (1.0,)
    return (mean * channels)[:channels] if len(mean) == 1 else mean, (std * channels)[:channels] if len(
        std
    ) == 1 else std


def _text(value: str) -> str:
    return _literal(value.encode())


def _literal(data: bytes) -> str:
    """A C text; octal escapes end after three digits, so that no digit behind them is taken along."""
    plain = set(range(32, 127)) - set(b'"\\?')
    return '"' + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in data) + '"'
