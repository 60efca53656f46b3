import json
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

pytest.importorskip("runtimes.serving.nets_test")

from runtimes.serving import nets_test as nets
from runtimes.serving.client import RemoteClient
from runtimes.serving.contracts import Endpoint, TlsFiles

LONG_S = 60.0
COMMAND = [sys.executable, "-m", "edge_deploy.cli.main"]


def edge_deploy(*arguments):
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False)


def started(*arguments):
    """The process, and what it said of itself."""
    process = subprocess.Popen(
        [*COMMAND, "serve", *map(str, arguments), "--listen", "127.0.0.1:0", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    text = ""
    for line in process.stdout:
        text += line
        if line == "}\n":
            break
    else:
        pytest.fail(process.communicate()[1])
    return process, json.loads(text)


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    folder = tmp_path_factory.mktemp("halves")
    return folder, nets.write_halves(folder)


def test_certificates_that_certs_made_open_the_server_that_serve_runs_and_sigterm_drains_it(halves, tmp_path):
    pytest.importorskip("cryptography")
    assert edge_deploy("certs", "--out", tmp_path / "certs", "--client", "gateway").returncode == 0
    certs = {
        name: tmp_path / "certs" / name for name in ("ca.pem", "server.pem", "server.key", "gateway.pem", "gateway.key")
    }
    # A batch that waits holds requests in the server while it is told to stop.
    process, said = started(
        halves[0], "--tls-cert", certs["server.pem"], "--tls-key", certs["server.key"], "--client-ca", certs["ca.pem"],
        "--batch-wait", "1500 ms", "--metrics", "127.0.0.1:0",
    )  # fmt: skip
    try:
        assert {model["name"] for model in said["models"]} == {"net", f"net@{nets.CUT}"}
        assert {model["version"] for model in said["models"]} == {halves[1]}
        tls = TlsFiles(authority=certs["ca.pem"], certificate=certs["gateway.pem"], key=certs["gateway.key"])
        endpoint = Endpoint(host="localhost", port=int(said["address"].rpartition(":")[2]), tls=tls)
        with RemoteClient(endpoint, artifact="net", digest=halves[1]) as client:
            client.infer(nets.inputs(8), deadline_s=LONG_S, cut="all-cloud")  # loads; a full batch does not wait
            answers = []
            sent = threading.Thread(
                target=lambda: answers.append(client.infer(nets.inputs(), deadline_s=LONG_S, cut="all-cloud"))
            )
            sent.start()
            while sent.is_alive() and not waits(said["metrics"], certs):
                pass
            process.send_signal(signal.SIGTERM)
            sent.join()
            np.testing.assert_array_equal(answers[0]["out"], nets.expected(nets.inputs()))
        _, errors = process.communicate(timeout=LONG_S)
        assert (process.returncode, "Traceback" in errors) == (0, False)
    finally:
        process.kill()
        process.wait()


def waits(port, certs) -> bool:
    import ssl
    import urllib.request

    context = ssl.create_default_context(cafile=str(certs["ca.pem"]))
    context.load_cert_chain(certs["gateway.pem"], certs["gateway.key"])
    page = urllib.request.urlopen(f"https://localhost:{port}/metrics", timeout=LONG_S, context=context)
    with page:
        return b"edge_deploy_requests_held 1.0" in page.read()


def test_what_must_not_be_served_is_refused_with_what_to_do(halves, tmp_path):
    refused = edge_deploy("serve", halves[0], "--listen", "0.0.0.0:0")
    assert refused.returncode == 3 and "--client-ca" in refused.stderr and "--token-file" in refused.stderr
    refused = edge_deploy("serve", halves[0], "--client-ca", "ca.pem")
    assert refused.returncode == 3 and "add --tls-cert" in refused.stderr
    refused = edge_deploy("serve", tmp_path)
    assert refused.returncode == 3 and "no artifact" in refused.stderr


def test_a_repository_for_mlserver_names_our_runtime_and_the_versions(halves, tmp_path):
    done = edge_deploy("export-repository", halves[0], "--out", tmp_path / "repository", "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["models"]) == 2
    settings = json.loads((tmp_path / "repository" / f"net@{nets.CUT}" / "model-settings.json").read_text())
    assert (settings["name"], settings["parameters"]["version"]) == (f"net@{nets.CUT}", halves[1])
    assert settings["implementation"] == "runtimes.serving.mlserver_runtime.EdgeDeployModel"
    assert settings["inputs"][0] == {"name": "b", "datatype": "FP32", "shape": [1, 4]}
    assert (tmp_path / "repository" / "net" / "artifact" / "manifest.json").exists()
    refused = edge_deploy("export-repository", halves[0], "--out", tmp_path / "other", "--layout", "triton")
    assert refused.returncode == 3 and "must be mlserver" in refused.stderr
