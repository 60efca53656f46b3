"""Which delegates a conversion can be asked for, and why others are refused."""

from __future__ import annotations

import difflib

from converters.cortex_m import CORES
from edge_deploy.core.errors import BadInput, Unsupported

__all__ = ["DEFAULT", "VULKAN", "check_delegate"]

DEFAULT, VULKAN = "xnnpack", "vulkan"
REFUSED = {
    "coreml": "Core ML models are compiled by coremltools and Apple's tools on a Mac; neither is at hand, so that "
    "nothing could be written or checked. Take --to tflite or --to executorch with XNNPACK, which run on iPhones too",
    "qnn": "Qualcomm's delegate needs the Qualcomm AI Engine Direct SDK (licensed, installed by hand) to compile for "
    "one chip, and that chip to check the result. INT8 files of --to tflite are what its TFLite delegate takes",
    "nnapi": "NNAPI is deprecated since Android 15, and nothing is converted for it: an application chose it when it "
    "loaded a .tflite file. Take --to tflite, whose INT8 files run by XNNPACK",
    "gpu": "TensorFlow Lite's GPU delegate is chosen by the application when it loads a .tflite file; nothing is "
    "converted for it. Take --to tflite --precision float16, and ask `edge-deploy inspect FILE --gpu`",
}


def check_delegate(name: str, *, targets: tuple[str, ...], recipes: tuple[str, ...]) -> None:
    """Refuse a delegate that nothing can be written for.

    Raises:
        Unsupported: It is known, and why it cannot be had.
        BadInput: It is unknown, or does not go with the targets or precisions.
    """
    if name == DEFAULT:
        return
    if name in REFUSED:
        raise Unsupported(f"--delegate {name}: {REFUSED[name]}.")
    if name not in (VULKAN, *CORES):
        known = (DEFAULT, VULKAN, *CORES, *REFUSED)
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"must be one of {', '.join((DEFAULT, VULKAN, *CORES))}."
        raise BadInput(f"--delegate {name}: is unknown; {hint}")
    if targets != ("executorch",):
        raise BadInput(f"--delegate {name}: is ExecuTorch's; take --to executorch alone, not {', '.join(targets)}.")
    if name in CORES:
        if recipes != ("int8",):
            raise Unsupported(
                f"--delegate {name}: {', '.join(recipes)}: CMSIS-NN's kernels are INT8; take --precision int8 alone, "
                "or --to c, which packs INT4 too."
            )
        return
    quantized = [recipe for recipe in recipes if recipe not in ("float32", "float16")]
    if quantized:
        raise Unsupported(
            f"--delegate vulkan: {', '.join(quantized)}: only float32 and float16 are written for it; its INT8 needs "
            "a quantizer of its own whose result nothing here could check. Take float16, or --delegate xnnpack."
        )
