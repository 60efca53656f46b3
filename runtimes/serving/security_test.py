import asyncio
import ssl
import stat
import sys
import urllib.error
import urllib.request

import pytest

pytest.importorskip("runtimes.serving.nets_test")
pytest.importorskip("cryptography")

from edge_deploy.core.errors import BadInput
from runtimes.serving import nets_test as nets
from runtimes.serving.certificates import make_authority
from runtimes.serving.client import RemoteClient
from runtimes.serving.contracts import Endpoint, TlsFiles, parse_address
from runtimes.serving.errors import CloudGone, CloudRefused
from runtimes.serving.metrics_page import MetricsPage
from runtimes.serving.security import Tokens, check_exposure, is_loopback, read_tokens
from runtimes.serving.server import Server, ServerThread, Serving

LONG_S = 30.0
TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return make_authority(tmp_path_factory.mktemp("certs"), clients=("gateway",))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return make_authority(tmp_path_factory.mktemp("stranger"), clients=("gateway",))


def ask(endpoint):
    with RemoteClient(endpoint, artifact="net") as client:
        return client.infer(nets.inputs(), deadline_s=LONG_S, cut="all-cloud")["out"]


def test_the_world_may_not_connect_without_showing_who_it_is(halves, authority):
    certificate, key = authority.server
    for host in ("0.0.0.0", "::", "192.0.2.7", "example.org"):
        with pytest.raises(BadInput, match=f"{host} can be reached from other machines"):
            Server(Serving(artifacts=(halves[0],), host=host))
        with pytest.raises(BadInput, match="nothing says who may connect"):  # a server's certificate asks nobody
            Server(Serving(artifacts=(halves[0],), host=host, tls=TlsFiles(certificate=certificate, key=key)))
        mutual = TlsFiles(authority=authority.authority, certificate=certificate, key=key)
        assert check_exposure(host, tls=mutual, has_tokens=False) == ()
        assert "in the clear" in check_exposure(host, tls=None, has_tokens=True)[0]
    assert all(map(is_loopback, ("127.0.0.1", "127.8.8.8", "::1", "localhost")))


def test_with_mutual_tls_only_clients_of_the_authority_are_answered(halves, authority, stranger):
    certificate, key = authority.server
    tls = TlsFiles(authority=authority.authority, certificate=certificate, key=key)
    with ServerThread(Serving(artifacts=(halves[0],), tls=tls)) as server:

        def endpoint(files, root, name="localhost"):
            shown = TlsFiles(authority=root, certificate=files and files[0], key=files and files[1], server_name=name)
            return Endpoint(host="127.0.0.1", port=server.port, tls=shown)

        mine = authority.clients["gateway"]
        assert ask(endpoint(mine, authority.authority)).shape == (1, 3)
        for refused in (
            endpoint(None, authority.authority),
            endpoint(stranger.clients["gateway"], authority.authority),
            endpoint(mine, stranger.authority),
            endpoint(mine, authority.authority, name="example.org"),
            Endpoint(host="127.0.0.1", port=server.port),
        ):
            with pytest.raises(CloudGone):
                ask(refused)
        assert ask(endpoint(mine, authority.authority)).shape == (1, 3)


def test_with_a_token_only_those_who_show_it_are_answered(halves):
    with ServerThread(Serving(artifacts=(halves[0],), tokens=(TOKEN, TOKEN[::-1]))) as server:
        for token in (TOKEN, TOKEN[::-1]):
            assert ask(Endpoint(host="127.0.0.1", port=server.port, token=token)).shape == (1, 3)
        for token in ("", "wrong", TOKEN[:-1], TOKEN + "x"):
            with pytest.raises(CloudRefused, match="UNAUTHENTICATED"):
                ask(Endpoint(host="127.0.0.1", port=server.port, token=token))


def test_tokens_are_not_shown_and_bad_files_of_them_are_refused(tmp_path):
    assert TOKEN not in repr(Endpoint(host="h", port=1, token=TOKEN))
    assert TOKEN not in repr(Serving(artifacts=(), tokens=(TOKEN,)))
    file = tmp_path / "tokens"
    file.write_text(f"# of the gateways\n{TOKEN}\n\n{TOKEN[::-1]}\n")
    assert read_tokens(file) == (TOKEN, TOKEN[::-1])
    for text, said in (("", "no token"), ("short\n", "at least 16"), ("with a space in between\n", "without spaces")):
        file.write_text(text)
        with pytest.raises(BadInput, match=said):
            read_tokens(file)


def test_a_test_authority_keeps_its_keys_to_itself_and_replaces_nothing(tmp_path):
    made = make_authority(tmp_path / "certs", hosts=("cloud.example", "10.0.0.1"), clients=("one", "two"))
    assert set(made.clients) == {"one", "two"}
    if sys.platform != "win32":
        for _, key in (made.server, *made.clients.values()):
            assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert not list((tmp_path / "certs").glob("ca.key"))
    with pytest.raises(BadInput, match="is there already"):
        make_authority(tmp_path / "certs")
    with pytest.raises(BadInput, match=r"must be letters"):
        make_authority(tmp_path / "other", clients=("../escape",))
    from cryptography import x509

    certificate = x509.load_pem_x509_certificate(made.server[0].read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == ["cloud.example", "10.0.0.1"]


def test_the_page_of_metrics_asks_who_is_there_too(authority):
    certificate, key = authority.server
    tls = TlsFiles(certificate=certificate, key=key)

    async def inside():
        page = MetricsPage(lambda: b"up 1\n", host="127.0.0.1", port=0, tls=tls, tokens=Tokens((TOKEN,)))
        await page.start()
        try:
            trusted = ssl.create_default_context(cafile=str(authority.authority))

            def get(path, token):
                headers = {"Authorization": f"Bearer {token}"} if token else {}
                request = urllib.request.Request(f"https://localhost:{page.port}{path}", headers=headers)
                try:
                    with urllib.request.urlopen(request, timeout=LONG_S, context=trusted) as answer:
                        return answer.status, answer.read()
                except urllib.error.HTTPError as error:
                    with error:
                        return error.code, b""

            asked = (("/metrics", TOKEN), ("/metrics", ""), ("/metrics", "wrong"), ("/other", TOKEN))
            return [await asyncio.to_thread(get, *each) for each in asked]
        finally:
            await page.stop()

    assert asyncio.run(inside()) == [(200, b"up 1\n"), (401, b""), (401, b""), (404, b"")]
    with pytest.raises(BadInput, match=r"metrics: 0\.0\.0\.0 can be reached"):
        MetricsPage(lambda: b"", host="0.0.0.0", port=0, tokens=Tokens())


def test_addresses_are_read_or_refused():
    assert parse_address("localhost:80", where="x") == ("localhost", 80)
    assert parse_address("[::1]:8001", where="x") == ("::1", 8001)
    assert Endpoint(host="::1", port=8001).address == "[::1]:8001"
    for text in ("localhost", ":80", "a:b", "host:99999", "::1:80", "a b:1"):
        with pytest.raises(BadInput, match="must be HOST:PORT"):
            parse_address(text, where="x")
    with pytest.raises(BadInput, match="come together"):
        TlsFiles(certificate=__import__("pathlib").Path("x"))
