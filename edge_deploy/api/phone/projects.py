"""The text of phone projects: templates filled from a signature."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_deploy.core.artifact import Artifact, Signature
from edge_deploy.core.features import FeatureSpec

__all__ = ["RUNTIMES", "Project", "android_files", "ios_files"]

HERE = Path(__file__).parent
ANDROID_RUNTIMES = {
    "tflite": "com.google.ai.edge.litert:litert:2.3.0",
    "executorch": "org.pytorch:executorch-android:1.5.1",
}
IOS_RUNTIMES = {"tflite": "~> 2.14", "executorch": "1.5.1"}
RUNTIMES = {"android": ANDROID_RUNTIMES, "ios": IOS_RUNTIMES}
TEMPLATES = {"tflite": "litert", "executorch": "executorch"}
KOTLIN_WRITE = {
    "float32": ("writeFloat", "floats"),
    "int8": ("writeInt8", "bytes"),
    "uint8": ("writeInt8", "bytes"),
    "int32": ("writeInt", "ints"),
    "int64": ("writeLong", "longs"),
}
KOTLIN_READ = {"float32": "readFloat", "int8": "readInt8", "uint8": "readInt8", "int32": "readInt", "int64": "readLong"}
KOTLIN_TENSOR = {
    "float32": ("fromBlob", "floats", "dataAsFloatArray"),
    "int8": ("fromBlob", "bytes", "dataAsByteArray"),
    "uint8": ("fromBlobUnsigned", "bytes", "dataAsUnsignedByteArray"),
    "int32": ("fromBlob", "ints", "dataAsIntArray"),
    "int64": ("fromBlob", "longs", "dataAsLongArray"),
}
SWIFT_TYPES = {"float32": "Float", "int8": "Int8", "uint8": "UInt8", "int32": "Int32", "int64": "Int64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """What templates are filled from.

    Attributes:
        signature: With one sample.
        model: File name of the model in the project.
        data: File names of what the model needs beside it: tables in a `.ptd`.
        input_places: Where the inputs of the signature stand in the file; the same of outputs.
        has_image: The model takes an image.
    """

    artifact: Artifact
    signature: Signature
    features: FeatureSpec | None
    model: str
    data: tuple[str, ...]
    input_places: tuple[int, ...]
    output_places: tuple[int, ...]
    has_image: bool

    @property
    def name(self) -> str:
        """A name for code, e.g. "Resnet8Int8"."""
        words = re.findall("[A-Za-z0-9]+", self.artifact.name) or ["Model"]
        text = "".join(word[0].upper() + word[1:] for word in words)
        return text if text[0].isalpha() else f"Model{text}"

    @property
    def package(self) -> str:
        """Of the Kotlin code."""
        return f"edgedeploy.{self.name.lower()}"


def android_files(project: Project) -> dict[str, str]:
    """Path in the project to text, without the model and the C files."""
    package = project.package
    values = {**_common(project, "android"), "PACKAGE": package, "JNI": package.replace(".", "_")}
    values["DEPENDENCY"] = ANDROID_RUNTIMES[project.artifact.format]
    source = f"model/src/main/java/{package.replace('.', '/')}"
    kind = TEMPLATES[project.artifact.format]
    return {
        "settings.gradle.kts": _filled("android/settings.gradle.kts.template", values),
        "build.gradle.kts": _filled("android/build.gradle.kts.template", values),
        "model/build.gradle.kts": _filled("android/model.build.gradle.kts.template", values),
        "model/src/main/AndroidManifest.xml": "<manifest />\n",
        "model/src/main/cpp/CMakeLists.txt": _filled("android/CMakeLists.txt.template", values),
        "model/src/main/cpp/model_io_jni.c": _filled("android/model_io_jni.c.template", values),
        f"{source}/ModelIo.kt": _filled("android/ModelIo.kt.template", values),
        f"{source}/EdgeModel.kt": _filled(f"android/EdgeModel.kt.{kind}.template", values),
    }


def ios_files(project: Project) -> dict[str, str]:
    """Path in the project to text, without the model and the C files."""
    values = {**_common(project, "ios"), "VERSION": IOS_RUNTIMES[project.artifact.format]}
    values["COMMON"] = _filled("ios/common.swift.template", values).rstrip("\n")
    files_beside = [f'try resource({_quoted(Path(name).stem)}, "{Path(name).suffix[1:]}")' for name in project.data]
    values["DATA"] = f"dataFilePaths: [{', '.join(files_beside)}], " if files_beside else ""
    values["RESOURCES"] = ", ".join(f".copy({_quoted(f'Resources/{name}')})" for name in (project.model, *project.data))
    kind = TEMPLATES[project.artifact.format]
    files = {"Sources/EdgeModel/EdgeModel.swift": _filled(f"ios/EdgeModel.swift.{kind}.template", values)}
    if kind == "executorch":
        files["Package.swift"] = _filled("ios/Package.swift.template", values)
    else:
        files[f"{project.name}.podspec"] = _filled("ios/EdgeModel.podspec.template", values)
    return files


def _common(project: Project, platform: str) -> dict[str, str]:
    signature, stem = project.signature, Path(project.model)
    inputs = [(info, math.prod(info.shape)) for info in signature.inputs]
    sizes = [count * np.dtype(info.dtype).itemsize for info, count in inputs]
    outputs = [(info, math.prod(info.shape)) for info in signature.outputs]
    labels = signature.outputs[0].labels or project.artifact.source_outputs[0].labels
    swift = platform == "ios"
    values = {
        "PROJECT": project.name,
        "TITLE": f"{project.artifact.name}, {project.artifact.spec.recipe}, {project.artifact.format}",
        "MODEL": project.model,
        "MODEL_STEM": stem.stem,
        "MODEL_TYPE": stem.suffix.removeprefix("."),
        "SIGNATURE": signature.name,
        "SHA256": project.artifact.model_file.sha256,
        "LABELS": ", ".join(_quoted(label) if swift else _quoted(label).replace("$", "\\$") for label in labels),
        "INPUT_BUFFERS": ", ".join(f"direct({size})" for size in sizes),
        "INPUT_SIZES": ", ".join(map(str, sizes)),
        "INPUT_NAMES": ", ".join(
            f"{_quoted(info.name)} to model.createInputBuffer({_quoted(info.name)}, {_quoted(signature.name)})"
            for info, _ in inputs
        ),
        "OUTPUT_NAMES": ", ".join(
            f"{_quoted(info.name)} to model.createOutputBuffer({_quoted(info.name)}, {_quoted(signature.name)})"
            for info, _ in outputs
        ),
        "WRITES": "\n".join(
            f"        buffers.getValue({_quoted(info.name)}).{KOTLIN_WRITE[info.dtype][0]}("
            f"{KOTLIN_WRITE[info.dtype][1]}(inputs[{index}], {count}))"
            for index, (info, count) in enumerate(inputs)
        ),
        "INPUT_PLACES": ", ".join(map(str, project.input_places)),
        "OUTPUT_PLACES": ", ".join(map(str, project.output_places)),
        "OUTPUT_COUNTS": ", ".join(str(count) for _, count in outputs),
        "ARGUMENTS": ", ".join(_argument(index, project, swift=swift) for index in range(len(inputs))),
        "READS": ", ".join(_read(index, project, swift=swift) for index in range(len(outputs))),
    }
    fields = {"FIELDS": str(len(project.features.fields)) if project.features is not None else "0"}
    return {**values, "CALLS": _call(project, fields, platform, "swift" if swift else "kt")}


def _argument(index: int, project: Project, *, swift: bool) -> str:
    info = project.signature.inputs[index]
    count = math.prod(info.shape)
    shape = ", ".join(map(str, info.shape))
    if swift:
        return f"Tensor<{SWIFT_TYPES[info.dtype]}>(scalars(inputs[{index}]), shape: [{shape}])"
    make, read, _ = KOTLIN_TENSOR[info.dtype]
    return f"EValue.from(Tensor.{make}({read}(inputs[{index}], {count}), longArrayOf({shape})))"


def _read(index: int, project: Project, *, swift: bool) -> str:
    info = project.signature.outputs[index]
    count = math.prod(info.shape)
    if swift:
        kind = SWIFT_TYPES[info.dtype]
        return f"decoded({index}, bytes(try Tensor<{kind}>(answers[{index}]).scalars()))"
    if project.artifact.format == "tflite":
        return f"decoded({index}, raw(answers.getValue({_quoted(info.name)}).{KOTLIN_READ[info.dtype]}()), {count})"
    taken = KOTLIN_TENSOR[info.dtype][2]
    return f"decoded({index}, raw(answers[{index}].toTensor().{taken}), {count})"


def _call(project: Project, values: dict[str, str], folder: str, suffix: str) -> str:
    """The public function: what the app has goes in, real values come back."""
    name = "score" if project.features is not None else "classify" if project.has_image else "call"
    return _filled(f"{folder}/{name}.{suffix}.template", values)


def _quoted(text: str) -> str:
    """A text for Kotlin and Swift; Kotlin would read a variable after a plain `$`, and Swift has another escape."""
    return json.dumps(text, ensure_ascii=False)


def _filled(template: str, values: dict[str, str]) -> str:
    text = (HERE / template).read_text(encoding="utf-8")
    return re.sub(r"@([A-Z0-9_]+)@", lambda found: values[found[1]], text)
