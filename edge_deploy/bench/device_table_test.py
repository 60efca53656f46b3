from dataclasses import replace

from device_tests.tasks.quality import Quality
from device_tests.tasks.run import SuiteRow
from edge_deploy.bench.device_table import SUMMARY_COLUMNS, remarks, summary_rows


def row(model, precision, format_, runtime, value, **changes):
    quality = Quality(metric="accuracy", value=value, low=value - 0.05, high=value + 0.05, items=200, floor=0.85)
    made = SuiteRow(
        task="image_classification",
        model=model,
        path="p",
        precision=precision,
        format=format_,
        runtime=runtime,
        device="host",
        provenance="measured",
        offered=200,
        quality=quality,
    )
    return replace(made, **changes)


def test_a_line_tells_all_runtimes_of_a_model_and_what_a_board_takes():
    rows = [
        row("published Net", "int8", "tflite", "ai-edge-litert 2.3.0 XNNPACK", 0.85),
        row("Net for microcontrollers", "int8", "tflite", "ai-edge-litert 2.3.0 XNNPACK", 0.7),
        row("Net for microcontrollers", "int8", "tflite", "tflite-micro 0.1 reference", 0.86),
        row("Net", "int8", "tflite", "ai-edge-litert 2.3.0 XNNPACK", 0.865),
        row("Net", "int8", "executorch", "executorch 1.5.1 XNNPACK", 0.855),
        row("Net", "int8", "c", "generated C by gcc", 0.86),
        row("Net", "int8", "c", "", 0.9, device="qemu:cortex-m4", instructions=20.16e6, memory_bytes=34600),
        row("Net", "int8", "c", "", 0.9, device="qemu:cortex-m55", instructions=1.0),
        row(
            "Net",
            "int4",
            "tflite",
            "tflite-micro",
            0,
            quality=None,
            problem="TFLM refuses it: no",
            problem_kind="BadInput",
        ),
        row("Net", "int4", "c", "", 0, quality=None, problem="no compiler", problem_kind="MissingExtra"),
    ]
    lines = list(summary_rows(rows))
    assert all(len(line) == len(SUMMARY_COLUMNS) for line in lines)
    assert lines == [
        ("Net, published (200, 85 %)", "INT8", "85.0 %", "", "", "", "", "", ""),
        ("Net (200, 85 %)", "INT8", "86.5 %", "85.5 %", "86.0 %", "86.0 %", "20.16", "34.6 kB", ""),
        ("Net", "INT4", "", "", "refused", "failed", "", "", ""),
    ]


def test_what_intervals_can_say_is_said_and_no_more():
    close = [row("Net", "int8", "c", "", 0.86), row("Net", "int8", "executorch", "", 0.84)]
    assert remarks(close) == (
        "Of 1 pairs of runtimes in a line, the 95 % intervals of 1 overlap. The intervals are those of each row alone; "
        "answers to the same items were not compared in pairs. "
        "Of 1 rows below their floor (all devices), 1 have an interval that holds it."
    )
    far = [*close, row("Net", "int8", "tflite", "tflite-micro", 0.3)]
    assert "those that do not: Net int8: ExecuTorch and TFLM; Net int8: TFLM and generated C." in remarks(far)
    assert "Of 2 rows below their floor (all devices), 1 have" in remarks(far)
