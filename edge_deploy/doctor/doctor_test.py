import dataclasses
import subprocess
import sys

import pytest

from edge_deploy.core.benchmark import Machine
from edge_deploy.doctor import Finding, diagnose
from edge_deploy.doctor.engines import Engine, check_engines
from edge_deploy.doctor.machine import Resources, check_machine, read_resources
from edge_deploy.doctor.packages import check_cuda, check_packages, check_python, parse_wishes, wished_packages

WISHES = parse_wishes(
    [
        "numpy>=1.26",
        'torch==2.13.0; extra == "run"',
        'executorch==1.5.1 ; extra == "run"',
        "edge-deploy[run]; extra == 'export'",
        'tf_keras==2.21.0; extra == "export"',
        'numpy==2.4.6; extra == "export"',
        'edge-deploy[export,run]; extra == "all"',
        'ruff>=0.9; extra == "dev"',
    ]
)
WHOLE = {"numpy": "2.4.6", "torch": "2.13.0+cpu", "executorch": "1.5.1", "tf-keras": "2.21.0"}


def levels(findings):
    return {finding.level for finding in findings}


def only(findings, level):
    (found,) = [finding for finding in findings if finding.level == level]
    return found


def test_an_installation_as_wished_has_nothing_but_good_findings():
    assert levels(check_packages(WISHES, WHOLE)) == {"ok"}


def test_another_patch_release_is_noted_and_another_minor_release_is_a_problem():
    found = only(check_packages(WISHES, WHOLE | {"executorch": "1.5.2"}), "note")
    assert "executorch 1.5.2: was tried with 1.5.1" in found.text
    found = only(check_packages(WISHES, WHOLE | {"torch": "2.14.0"}), "problem")
    assert found.remedy == "pip install 'torch==2.13.0'"


def test_an_incomplete_extra_is_noted_with_its_pip_command_also_when_another_extra_takes_it():
    findings = check_packages(WISHES, {"numpy": "2.4.6", "tf-keras": "2.21.0"})
    notes = {finding.remedy: finding.text for finding in findings if finding.level == "note"}
    assert set(notes) == {"pip install 'edge-deploy[run]'", "pip install 'edge-deploy[export]'"}
    assert "torch, executorch missing" in notes["pip install 'edge-deploy[export]'"]


def test_a_missing_basic_package_is_a_problem_and_an_old_one_too():
    assert "numpy" in only(check_packages(WISHES[:1], {}), "problem").text
    assert "at least 1.26" in only(check_packages(WISHES[:1], {"numpy": "1.25.2"}), "problem").text


def test_the_project_describes_its_own_wishes():
    packages = {wish.package for wish in wished_packages()}
    assert {"numpy", "torch", "executorch", "ai-edge-litert"} <= packages


@pytest.mark.parametrize(
    "installed",
    [
        {"torch": "2.13.0+cu130"},
        {"torch": "2.13.0", "nvidia-cublas": "13", "triton": "3"},
    ],
)
def test_a_cuda_build_of_torch_is_flagged_as_needless(installed):
    (found,) = check_cuda(installed, {"nvidia-cublas": 1_500_000_000, "triton": 500_000_000})
    assert found.level == "note"
    assert "a CPU build is enough" in found.text
    assert ("2.00 GB" in found.text) == ("nvidia-cublas" in installed)
    assert "torch==2.13.0" in found.remedy


def test_a_cpu_build_of_torch_is_fine_and_no_torch_is_not_mentioned():
    assert levels(check_cuda({"torch": "2.13.0+cpu"})) == {"ok"}
    assert check_cuda({"numpy": "2"}) == ()


def test_python_older_than_ours_is_a_problem_and_newer_a_note():
    assert check_python((3, 10, 9)).level == "problem"
    assert check_python((3, 11, 0)).level == "ok"
    assert check_python((3, 14, 0)).level == "note"


def test_a_runtime_that_does_not_start_is_a_problem_and_the_child_takes_the_crash(tmp_path, monkeypatch):
    (tmp_path / "crashing_engine.py").write_text("import os\nos.abort()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    good = Engine(package="good", module="json", extra="run-good")
    bad = Engine(package="bad", module="crashing_engine", extra="run-bad")
    findings = check_engines({"good": "1", "bad": "1"}, engines=(good, bad))
    assert findings[0] == Finding(level="ok", text="good starts")
    assert findings[1].level == "problem"
    assert "SIGABRT" in findings[1].text
    assert "run-bad" in findings[1].remedy


def test_no_runtime_and_an_old_tflite_runtime_are_told():
    assert "no runtime" in only(check_engines({}, try_imports=False), "note").text
    assert only(check_engines({"tflite-runtime": "2.14.0"}, try_imports=False), "problem").remedy
    both = {"tflite-runtime": "2.14.0", "ai-edge-litert": "2.3.0"}
    assert "per row wrongly" in only(check_engines(both, try_imports=False), "note").text


MACHINE = Machine(
    cpu_model="cpu",
    isa="x86_64",
    features=("avx2", "avx512_vnni"),
    cores=4,
    ram_bytes=1 << 34,
    governor=None,
    kernel="L",
)
RESOURCES = Resources(
    machine=MACHINE, free_ram_bytes=8 << 30, free_disk_bytes={"here": 9 << 30}, lock_limit_bytes=8 << 20
)


@pytest.mark.parametrize(
    ("change", "level", "words"),
    [
        ({"machine": dataclasses.replace(MACHINE, features=("avx2",))}, "note", "no INT8 dot product"),
        ({"machine": dataclasses.replace(MACHINE, features=())}, "note", "could not be read"),
        ({"machine": dataclasses.replace(MACHINE, cores=1)}, "note", "shares it"),
        ({"machine": dataclasses.replace(MACHINE, governor="powersave")}, "note", "frequency may change"),
        ({"free_ram_bytes": 1 << 30}, "note", "a conversion may need"),
        ({"free_disk_bytes": {"here": 5000}}, "problem", "5.00 kB free in here"),
        ({"lock_limit_bytes": None}, "note", "any amount of"),
    ],
)
def test_each_shortage_of_the_machine_is_told_alone(change, level, words):
    assert levels(check_machine(RESOURCES, has_executorch=True)) == {"ok"}
    assert words in only(check_machine(dataclasses.replace(RESOURCES, **change), has_executorch=True), level).text


def test_locked_memory_matters_only_with_executorch():
    unlimited = dataclasses.replace(RESOURCES, lock_limit_bytes=None)
    assert levels(check_machine(unlimited, has_executorch=False)) == {"ok"}


def test_this_machine_can_be_read():
    resources = read_resources()
    assert resources.machine.cores >= 1
    assert all(free >= 0 for free in resources.free_disk_bytes.values())


def test_a_diagnosis_loads_no_heavy_library():
    code = (
        "import sys; from edge_deploy.doctor import diagnose; assert diagnose(try_imports=False); "
        "print([m for m in ('torch', 'tensorflow', 'executorch', 'ai_edge_litert', 'onnxruntime') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_every_finding_that_is_not_good_says_what_to_do_or_what_it_limits():
    for finding in diagnose(try_imports=False):
        assert finding.text
        assert finding.level != "problem" or finding.remedy


def test_delegates_are_spoken_of_where_their_packages_are_installed():
    from edge_deploy.doctor.delegates import check_delegates
    from edge_deploy.doctor.packages import installed_packages

    assert check_delegates({}) == ()
    installed = installed_packages()
    texts = " ".join(finding.text for finding in check_delegates(installed))
    assert ("GPU compatibility analysis" in texts) == ("ai-edge-litert" in installed)
