"""Write a project for phones around an artifact: the model, its runtime, and the code before and after it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

from edge_deploy.api.phone.compile_check import Built, check_c
from edge_deploy.api.phone.delivery import delivery_note
from edge_deploy.api.phone.model_spec import at_one_sample, counts_header, image_input, spec_source, vectors_header
from edge_deploy.api.phone.projects import RUNTIMES, Project, android_files, ios_files
from edge_deploy.core.artifact import MANIFEST, Artifact, Signature
from edge_deploy.core.errors import BadInput, Unsupported
from edge_deploy.core.features import FEATURES_FILE, FeatureSpec, read_features
from edge_deploy.core.publish import published_folder
from runtimes.folder import artifact_file, check_files, read_artifact
from runtimes.formats.nibble_ptd import is_packed

__all__ = ["PackageReport", "Platform", "package"]

Platform: TypeAlias = Literal["android", "ios"]
TEMPLATES = Path(__file__).parent / "phone"
C_FILES = ("model_io.c", "model_spec.h", "selftest.c")
SDK = {
    "android": "not built: no Android SDK here; open the folder in Android Studio, or run gradle :model:assemble",
    "ios": "not built: no Swift for iOS here; open the folder in Xcode",
}
LANGUAGE = {"android": "Kotlin, JNI", "ios": "Swift"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageReport:
    """What was written.

    Attributes:
        files: Paths in the folder.
        dependency: The runtime that the project asks for.
        built: What was compiled here, and what was not.
    """

    folder: Path
    platform: Platform
    dependency: str
    files: tuple[str, ...]
    built: tuple[Built, ...]


def package(folder: Path | str, *, platform: Platform, out: Path | str, force: bool = False) -> PackageReport:
    """Write the project of an artifact.

    Args:
        folder: The artifact.
        platform: "android" (a Gradle library module in Kotlin) or "ios" (a Swift package or pod).
        out: The new folder.
        force: Replace it where it exists.

    Raises:
        BadInput: The artifact is damaged, or `out` exists.
        Unsupported: The platform's runtime cannot load it; says why.
        ToolchainError: The generated C part does not compile, or fails its self-test.
    """
    folder, out = Path(folder), Path(out)
    if platform not in RUNTIMES:
        raise BadInput(f"platform {platform!r}: must be one of {', '.join(RUNTIMES)}.")
    artifact = read_artifact(folder)
    check_files(folder, artifact)
    _check_loads(folder, artifact, platform)
    model = artifact_file(folder, artifact.model_file.path)
    data = [entry for entry in artifact.files if entry.role == "data"]
    one = at_one_sample(artifact.signatures[0])
    called = _in_file(model, one)
    signature = replace(one, name=called.name)
    features = _features(folder, artifact, signature)
    project = Project(
        artifact=artifact,
        signature=signature,
        features=features,
        model=f"model{model.suffix}",
        data=tuple(Path(entry.path).name for entry in data),
        input_places=called.inputs,
        output_places=called.outputs,
        has_image=image_input(artifact, signature) is not None,
    )
    runtime = RUNTIMES[platform][artifact.format]
    dependency = runtime if platform == "android" else f"{_ios_name(artifact)}{runtime}"
    with published_folder(out, force=force) as work:
        texts = android_files(project) if platform == "android" else ios_files(project)
        code = work / ("model/src/main/cpp" if platform == "android" else "Sources/ModelIO")
        assets = work / ("model/src/main/assets" if platform == "android" else "Sources/EdgeModel/Resources")
        _write(work, texts)
        tests = work / "selftest"
        for place in (code, assets, tests):
            place.mkdir(parents=True, exist_ok=True)
        header = code / ("include/model_io.h" if platform == "ios" else "model_io.h")
        header.parent.mkdir(exist_ok=True)
        shutil.copyfile(TEMPLATES / "model_io.h", header)
        for name in C_FILES:
            shutil.copyfile(TEMPLATES / name, (tests if name == "selftest.c" else code) / name)
        _write(code, {"model_spec.c": spec_source(artifact, signature, features)})
        _write(code, {"model_counts.h": counts_header(artifact, signature, features)})
        _write(tests, {"selftest_vectors.h": vectors_header(artifact, signature, features)})
        shutil.copyfile(model, assets / project.model)
        for entry in data:
            shutil.copyfile(artifact_file(folder, entry.path), assets / Path(entry.path).name)
        shutil.copyfile(folder / MANIFEST, work / MANIFEST)
        built = (
            *check_c((code, header.parent, tests)),
            Built(part=LANGUAGE[platform], outcome=SDK[platform]),
        )
        note = delivery_note(artifact, platform, dependency=dependency, built=built)
        _write(work, {"DELIVERY.md": note})
        files = tuple(sorted(str(path.relative_to(work)) for path in work.rglob("*") if path.is_file()))
    return PackageReport(folder=out, platform=platform, dependency=dependency, files=files, built=built)


def _check_loads(folder: Path, artifact: Artifact, platform: Platform) -> None:
    problems = []
    if artifact.format not in RUNTIMES[platform]:
        problems.append(f"{artifact.format}: no runtime of it on phones; convert to tflite or executorch.")
    data = [artifact_file(folder, entry.path) for entry in artifact.files if entry.role == "data"]
    is_recommender = artifact.kind == "recommender"
    remedy = "convert it --to tflite." if is_recommender else "convert with --plain-pte or --precision int8."
    if any(is_packed(path) for path in data):
        problems.append(
            f"its 4-bit weights lie packed beside the program, which our own runner alone inflates; {remedy}"
        )
    elif data and platform == "android":
        problems.append(
            "its weights lie in a .ptd beside the program, which ExecuTorch's package for Android cannot be given "
            f"(Module.load takes one path; on iOS it takes both); {remedy}"
        )
    if artifact.split is not None and artifact.split.half == "tail":
        problems.append("it is the half that runs in the cloud; package the head.")
    if problems:
        raise Unsupported(*(f"{artifact.name} for {platform}: {problem}" for problem in problems))


def _features(folder: Path, artifact: Artifact, signature: Signature) -> FeatureSpec | None:
    if not any(entry.role == "features" for entry in artifact.files):
        return None
    features = read_features(folder / FEATURES_FILE)
    shapes = {info.name: info.shape[-1] for info in signature.inputs if info.shape}
    wanted = {features.dense_input: len(features.dense), features.ids_input: len(features.categorical)}
    wrong = [name for name, count in wanted.items() if count and shapes.get(name) != count]
    if wrong:
        raise BadInput(f"{folder / FEATURES_FILE}: input {wrong[0]} has other columns in the manifest; convert again.")
    return features


@dataclass(frozen=True, slots=True, kw_only=True)
class _InFile:
    """How a file is called: name of the signature or method, and where its tensors stand for who knows no names."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def _in_file(model: Path, signature: Signature) -> _InFile:
    plain = _InFile(
        name=signature.name,
        inputs=tuple(range(len(signature.inputs))),
        outputs=tuple(range(len(signature.outputs))),
    )
    if model.suffix == ".pte":
        from runtimes.formats.pte import read_pte

        methods = [method.name for method in read_pte(model).methods]
        return plain if signature.name in methods else replace(plain, name="forward")
    from runtimes.formats.tflite_file import read_tflite

    file = read_tflite(model)
    if not file.signatures:
        return replace(plain, name="")
    chosen = next((each for each in file.signatures if each.key == signature.name), file.signatures[0])
    graph = file.subgraphs[chosen.subgraph]
    inputs, outputs = dict(chosen.inputs), dict(chosen.outputs)
    try:
        return _InFile(
            name=chosen.key,
            inputs=tuple(list(graph.inputs).index(inputs[info.name]) for info in signature.inputs),
            outputs=tuple(list(graph.outputs).index(outputs[info.name]) for info in signature.outputs),
        )
    except (KeyError, ValueError) as error:
        raise BadInput(
            f"{model}: signature {chosen.key} has other tensors than the manifest; convert again."
        ) from error


def _ios_name(artifact: Artifact) -> str:
    return "TensorFlowLiteSwift " if artifact.format == "tflite" else "executorch, branch swiftpm-"


def _write(folder: Path, texts: dict[str, str]) -> None:
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
