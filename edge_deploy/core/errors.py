"""Every error the tools raise: one class a situation, each with its own exit code, saying what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

__all__ = [
    "BadInput",
    "DeviceError",
    "EdgeDeployError",
    "MissingExtra",
    "NoFeasiblePlan",
    "Refusal",
    "ToolchainError",
    "Unsupported",
    "VerificationFailed",
    "error_from_json",
    "error_to_json",
]


class EdgeDeployError(Exception):
    """Anything the user can act on.

    Args:
        problems: One message a problem; each says where, what was found, what would be right and what to do.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, *problems: str) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problems))


class BadInput(EdgeDeployError):
    """A model, data set, artifact, option or installation is not what it must be."""

    exit_code = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One layer that cannot become what was asked."""

    layer: str
    op: str
    reason: str
    remedy: str = ""

    def __str__(self) -> str:
        text = f"layer {self.layer} ({self.op}): {self.reason}"
        return f"{text}; {self.remedy}" if self.remedy else text


class Unsupported(EdgeDeployError):
    """The request is understood and cannot be carried out; carries a refusal for each layer concerned."""

    exit_code = 4

    def __init__(self, *problems: str, refusals: tuple[Refusal, ...] = ()) -> None:
        self.refusals = refusals
        super().__init__(*problems, *(str(refusal) for refusal in refusals))


class MissingExtra(EdgeDeployError):
    """A package that this step needs is not installed; the message carries the pip command."""

    exit_code = 5


class ToolchainError(EdgeDeployError):
    """A third-party converter or runtime failed; carries the stage, the versions and the cause."""

    exit_code = 6


class DeviceError(EdgeDeployError):
    """A device could not be reached, or did not do what its transport promises."""

    exit_code = 7


class VerificationFailed(EdgeDeployError):
    """The written artifact does not compute what was asked of it; nothing was kept."""

    exit_code = 8


class NoFeasiblePlan(EdgeDeployError):
    """No cut satisfies the constraints."""

    exit_code = 9


_CLASSES = {
    cls.__name__: cls
    for cls in (
        EdgeDeployError,
        BadInput,
        MissingExtra,
        ToolchainError,
        DeviceError,
        VerificationFailed,
        NoFeasiblePlan,
    )
}


def error_to_json(error: EdgeDeployError) -> dict[str, object]:
    """The error as plain JSON values, so that a child process can hand it to its parent."""
    refusals = [
        {"layer": r.layer, "op": r.op, "reason": r.reason, "remedy": r.remedy} for r in getattr(error, "refusals", ())
    ]
    return {"class": type(error).__name__, "problems": list(error.problems), "refusals": refusals}


def error_from_json(data: dict[str, object]) -> EdgeDeployError:
    """The error that `error_to_json` described."""
    problems = [str(problem) for problem in data["problems"]]  # type: ignore[attr-defined]  # a list by construction
    if data["class"] == "Unsupported":
        refusals = tuple(Refusal(**refusal) for refusal in data["refusals"])  # type: ignore[attr-defined]  # likewise
        own = problems[: len(problems) - len(refusals)]
        return Unsupported(*own, refusals=refusals)
    return _CLASSES.get(str(data["class"]), EdgeDeployError)(*problems)
