import subprocess
import sys

from edge_deploy.core import registry

HEAVY = (
    *("torch", "tensorflow", "keras", "tf_keras", "executorch", "onnxruntime", "ai_edge_litert", "sklearn", "PIL"),
    *("grpc", "google.protobuf", "prometheus_client", "cryptography"),
)


def test_importing_the_five_packages_loads_no_heavy_library():
    code = f"import sys, {', '.join(registry.PACKAGES)}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_module_imports_without_a_heavy_library():
    code = (
        "import importlib, pkgutil, sys\n"
        f"for package in {registry.PACKAGES}:\n"
        "    for found in pkgutil.walk_packages(importlib.import_module(package).__path__, package + '.'):\n"
        "        if not found.name.endswith('_test'):\n"
        "            importlib.import_module(found.name)\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def test_the_command_line_shows_its_help_without_numpy():
    code = (
        "import sys\n"
        "from edge_deploy.cli import main\n"
        "sys.argv = ['edge-deploy', '--help']\n"
        "try:\n    main.main()\nexcept SystemExit:\n    pass\n"
        "print('numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("False"), done.stdout
    assert "convert" in done.stdout


def test_the_packages_lie_side_by_side():
    registry.check_packages_lie_side_by_side()
