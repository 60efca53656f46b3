"""Packages as installed against packages as wished: versions, extras, a needless CUDA build. Imports none."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from edge_deploy.core.units import format_bytes
from edge_deploy.doctor.finding import Finding

__all__ = [
    "Wish",
    "check_cuda",
    "check_packages",
    "check_python",
    "installed_packages",
    "parse_wishes",
    "wished_packages",
]

PROJECT = "edge-deploy"
PYTHON = (3, 11)
# Extras that only bundle others, or serve the development of this project.
UNREPORTED_EXTRAS = ("all", "dev")
_REQUIREMENT = re.compile(
    r"\s*([A-Za-z0-9._-]+)\s*(?:\[([^\]]*)\])?\s*([^;]*?)\s*(?:;.*extra\s*==\s*[\"']([^\"']+)[\"'].*)?\Z"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """One package that an extra asks for.

    Attributes:
        extra: Empty for what is always needed.
        version: "==2.13.0", ">=1.26" or empty.
        takes: Extras of our own that it stands for, when the package is this project.
    """

    extra: str
    package: str
    version: str
    takes: tuple[str, ...] = ()


def check_python(version: tuple[int, int, int] | None = None) -> Finding:
    """Whether this is the Python that the pinned versions were tried on."""
    found = version or sys.version_info[:3]
    text = "Python " + ".".join(map(str, found))
    if found[:2] < PYTHON:
        return Finding(level="problem", text=f"{text} is too old", remedy="use Python 3.11")
    if found[:2] > PYTHON:
        return Finding(
            level="note", text=f"{text}: the pinned packages were tried on 3.11 only", remedy="use Python 3.11 in doubt"
        )
    return Finding(level="ok", text=text)


def installed_packages() -> dict[str, str]:
    """Version of every installed distribution, by its normalised name."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            found.setdefault(_normal(name), distribution.version)
    return found


def wished_packages() -> tuple[Wish, ...]:
    """What the project's own description asks for: its `pyproject.toml` in a checkout, else its metadata."""
    project = Path(__file__).resolve().parents[2] / "pyproject.toml"
    if project.is_file():
        described = tomllib.loads(project.read_text(encoding="utf-8")).get("project", {})
        if described.get("name") == PROJECT:
            lines = [*described.get("dependencies", ())]
            for extra, packages in described.get("optional-dependencies", {}).items():
                lines += [f'{package}; extra == "{extra}"' for package in packages]
            return parse_wishes(lines)
    try:
        return parse_wishes(metadata.requires(PROJECT) or ())
    except metadata.PackageNotFoundError:
        return ()


def parse_wishes(lines: Iterable[str]) -> tuple[Wish, ...]:
    """Wishes from lines such as `torch==2.13.0; extra == "run-executorch"`; other lines are left out."""
    wishes = []
    for line in lines:
        found = _REQUIREMENT.match(line)
        if found:
            package, takes, version, extra = found.groups(default="")
            own = tuple(name.strip() for name in takes.split(",")) if _normal(package) == PROJECT else ()
            wishes.append(Wish(extra=extra, package=package, version=version.replace(" ", ""), takes=own))
    return tuple(wishes)


def check_packages(wishes: tuple[Wish, ...], installed: Mapping[str, str]) -> tuple[Finding, ...]:
    """One finding for each installed package, and one for each extra that is not complete."""
    if not wishes:
        return (
            Finding(
                level="note",
                text="edge-deploy is not installed as a package: its pinned versions cannot be compared",
                remedy="pip install -e . in the checkout",
            ),
        )
    findings = []
    for package in sorted({wish.package for wish in wishes if not wish.takes and wish.extra not in UNREPORTED_EXTRAS}):
        have = installed.get(_normal(package))
        if have is not None:
            versions = [wish.version for wish in wishes if wish.package == package]
            # The same package may be bounded always and pinned in an extra: the pin says what was tried.
            wanted = next((version for version in versions if version.startswith("==")), versions[0])
            findings.append(_compare(package, have, wanted))
    extras = dict.fromkeys(wish.extra for wish in wishes if wish.extra not in UNREPORTED_EXTRAS)
    for extra in extras:
        packages = _packages_of(extra, wishes)
        missing = [package for package in packages if _normal(package) not in installed]
        if missing and not extra:
            findings.append(
                Finding(
                    level="problem",
                    text=f"needed packages are missing: {', '.join(missing)}",
                    remedy=f"pip install {PROJECT}",
                )
            )
        elif missing:
            findings.append(
                Finding(
                    level="note",
                    text=f"extra {extra} is not complete: {', '.join(missing)} missing",
                    remedy=f"pip install '{PROJECT}[{extra}]'",
                )
            )
    return tuple(findings)


def check_cuda(installed: Mapping[str, str], sizes: Mapping[str, int] | None = None) -> tuple[Finding, ...]:
    """Whether torch brought CUDA libraries along, and how much disk they take.

    Args:
        sizes: Bytes of each installed distribution; read from their records when absent.
    """
    if "torch" not in installed:
        return ()
    version = installed["torch"]
    brought = sorted(name for name in installed if name.startswith("nvidia-") or name == "triton")
    if "+cu" not in version and not brought:
        return (Finding(level="ok", text=f"torch {version} is a build without CUDA"),)
    taken = sum(sizes.get(name, 0) if sizes is not None else _size(name) for name in brought)
    saved = f" and would save at least {format_bytes(taken)}" if taken else ""
    what = f"with {len(brought)} CUDA packages" if brought else "for CUDA"
    number = version.partition("+")[0]
    return (
        Finding(
            level="note",
            text=f"torch {version} is installed {what}; nothing here uses a GPU: a CPU build is enough{saved}",
            remedy=f"pip uninstall torch {' '.join(brought)}".rstrip()
            + f", then install torch=={number} from PyTorch's CPU package index (see README)",
        ),
    )


def _compare(package: str, have: str, wanted: str) -> Finding:
    text = f"{package} {have}"
    ours, theirs = _numbers(have), _numbers(wanted)
    if wanted.startswith("=="):
        if ours == theirs:
            return Finding(level="ok", text=text)
        return Finding(
            level="note" if ours[:2] == theirs[:2] else "problem",
            text=f"{text}: was tried with {wanted[2:]} only",
            remedy=f"pip install '{package}{wanted}'",
        )
    if wanted.startswith(">=") and ours < theirs:
        return Finding(
            level="problem", text=f"{text}: must be at least {wanted[2:]}", remedy=f"pip install '{package}{wanted}'"
        )
    return Finding(level="ok", text=text)


def _packages_of(extra: str, wishes: tuple[Wish, ...]) -> tuple[str, ...]:
    """Names of all packages of an extra, those of the extras it takes included."""
    found: dict[str, None] = {}
    waiting, seen = [extra], set()
    while waiting:
        name = waiting.pop(0)
        if name in seen:
            continue
        seen.add(name)
        for wish in wishes:
            if wish.extra == name:
                waiting += wish.takes
                if not wish.takes:
                    found[wish.package] = None
    return tuple(found)


def _size(package: str) -> int:
    """Bytes of a distribution as its record says; 0 where it has none."""
    try:
        files = metadata.distribution(package).files
    except metadata.PackageNotFoundError:
        return 0
    return sum(file.size or 0 for file in files or ())


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _numbers(version: str) -> tuple[int, ...]:
    leading = re.search(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in leading.group().split(".")) if leading else ()
