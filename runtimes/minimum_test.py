import pytest

from runtimes.minimum import is_new_enough


@pytest.mark.parametrize(
    ("name", "version", "minimum", "enough"),
    [
        ("ai-edge-litert", "2.3.0", "ai-edge-litert 1.4", True),
        ("ai-edge-litert", "1.4.0", "ai-edge-litert 1.4", True),
        ("ai-edge-litert", "1.10", "ai-edge-litert 1.4", True),
        ("ai-edge-litert", "1.3.9", "ai-edge-litert 1.4", False),
        ("tflite-runtime", "2.14.0", "ai-edge-litert 1.4", False),
        ("tflite-runtime", "2.14.0", "tflite-runtime 2.14", True),
        ("tflite-runtime", "2.13.0", "tflite-runtime 2.14", False),
        ("ai-edge-litert", "1.0.1", "tflite-runtime 2.14", True),
        ("ai-edge-litert", "2.3.0", "TensorFlow Lite Micro, tflite-runtime 2.14", True),
        ("tflite-runtime", "2.13.0", "TensorFlow Lite Micro, tflite-runtime 2.14", False),
        ("ai-edge-litert", "of unknown version", "ai-edge-litert 1.4", True),
        ("executorch", "1.5.1", "executorch 1.5", True),
        ("executorch", "1.5.1", "executorch 2", False),
    ],
)
def test_versions_are_compared_by_number_and_runtime(name: str, version: str, minimum: str, enough: bool) -> None:
    assert is_new_enough(name, version, minimum) is enough
