"""Name what most of an artifact's error comes from: ranges that do not fit the data, one layer, or all a little."""

from __future__ import annotations

from collections.abc import Sequence

from converters.debugger.finding import Cause, LayerDiagnosis

__all__ = ["name_cause"]

MUCH_CLIPPED = 0.01
STEPS = 256
FEW_STEPS = 24  # of 256, between the smallest and the largest value: ranges of other data
STANDS_OUT = 0.35


def name_cause(layers: Sequence[LayerDiagnosis]) -> Cause:
    """The cause.

    Args:
        layers: In topological order, inputs first.
    """
    clipped = [layer for layer in layers if layer.clipped > MUCH_CLIPPED]
    if clipped and _share(clipped) > STANDS_OUT:
        first = clipped[0]
        steps = _used_steps(first)
        more = f" The others use {max(steps, 1):.0f} of {STEPS} steps." if steps < FEW_STEPS else ""
        more += f" {len(clipped) - 1} more behind it are clipped too." if len(clipped) > 1 else ""
        return Cause(
            kind="ranges",
            text=f"{_called(first)}: {first.clipped:.1%} of its values lie outside the range that calibration foresaw "
            f"({_range(first.stored_low, first.stored_high)}) and are clipped; here they run from {first.low:.4g} to "
            f"{first.high:.4g}.{more} The calibration samples were not like these: other scale, other preprocessing, "
            "or too few.",
            layers=tuple(layer.layer for layer in clipped),
        )
    unused = [layer for layer in layers if _used_steps(layer) < FEW_STEPS]
    if unused and (unused[0].kind == "input" or len(unused) > len(layers) / 2) and _share(unused) > STANDS_OUT:
        first = unused[0]
        return Cause(
            kind="ranges",
            text=f"{_called(first)}: its values run from {first.low:.4g} to {first.high:.4g} and use "
            f"{max(_used_steps(first), 1):.0f} of {STEPS} steps of the range that calibration foresaw "
            f"({_range(first.stored_low, first.stored_high)}). The calibration samples were not like these: larger "
            "scale, or other preprocessing.",
            layers=tuple(layer.layer for layer in unused),
        )
    ranked = sorted(layers, key=lambda layer: -layer.noise_share)
    if ranked and ranked[0].noise_share > STANDS_OUT:
        worst = ranked[0]
        own = "" if worst.own_snr_db is None else f"; by itself it keeps {worst.own_snr_db:.1f} dB"
        return Cause(
            kind="layer",
            text=f"{_called(worst)} ({worst.got or worst.dtype}): {worst.noise_share:.0%} of the error that the layers "
            f"add to the answer is its own{own}.",
            layers=(worst.layer,),
        )
    first_three = ranked[:3]
    shown = ", ".join(f"{layer.layer} {layer.noise_share:.0%}" for layer in first_three)
    return Cause(
        kind="spread",
        text=f"no layer stands out; the largest parts of the error come from {shown}.",
        layers=tuple(layer.layer for layer in first_three),
    )


def _share(layers: Sequence[LayerDiagnosis]) -> float:
    return sum(layer.noise_share for layer in layers)


def _used_steps(layer: LayerDiagnosis) -> float:
    if layer.stored_low is None or layer.stored_high is None or layer.own_snr_db is None or layer.high <= layer.low:
        return STEPS
    return STEPS * (layer.high - layer.low) / (layer.stored_high - layer.stored_low)


def _called(layer: LayerDiagnosis) -> str:
    return f"{'input' if layer.kind == 'input' else 'layer'} {layer.layer}"


def _range(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.4g} to {high:.4g}"
