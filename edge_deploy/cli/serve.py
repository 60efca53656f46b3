"""`edge-deploy serve` and `edge-deploy certs`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_deploy.cli.output import AsJson, print_json

if TYPE_CHECKING:
    from runtimes.serving.server import Serving
    from runtimes.serving.workers import Started, Workers

__all__ = ["certs", "command"]


def command(
    artifacts: Annotated[
        list[Path],
        typer.Argument(metavar="ARTIFACT...", help="Artifact folders, folders of halves (split), or .tflite files."),
    ],
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Port 0 takes a free one.")] = "127.0.0.1:8001",
    cut: Annotated[
        list[str], typer.Option(metavar="ID", help="Cut the artifacts first, and serve this tail. Repeatable.")
    ] = [],  # noqa: B006
    all_cuts: Annotated[
        bool, typer.Option("--all-cuts", help="Cut at every legal prefix, and serve all tails.")
    ] = False,
    workers: Annotated[int, typer.Option(metavar="N", help="Server processes on the same port.")] = 1,
    sessions: Annotated[int, typer.Option(metavar="N", help="Sessions of each model in a process.")] = 1,
    threads: Annotated[int, typer.Option(metavar="N", help="Of one inference.")] = 1,
    batch: Annotated[
        int | None,
        typer.Option(metavar="ROWS", help="At most so many in one inference; default: the artifact's own, 8 of any."),
    ] = None,
    batch_wait: Annotated[str, typer.Option(metavar="TIME", help="A batch waits at most so long for more.")] = "0 ms",
    tune_p95: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Choose batch size (up to --batch) and wait of each model for the largest load whose p95 in the queue "
            "is within TIME.",
        ),
    ] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="BYTES", help="Budget of loaded models, e.g. 2GB; the oldest is unloaded.")
    ] = None,
    warm: Annotated[bool, typer.Option("--warm", help="Load models at the start, not at their first request.")] = False,
    waiting: Annotated[int, typer.Option(metavar="N", help="Requests that may wait for a model.")] = 1024,
    most_message: Annotated[
        str | None, typer.Option(metavar="BYTES", help="Largest request; default: what the models take.")
    ] = None,
    connections: Annotated[int, typer.Option(metavar="N", help="At most so many, in each process.")] = 4096,
    drain: Annotated[str, typer.Option(metavar="TIME", help="For requests under way when told to stop.")] = "10 s",
    tls_cert: Annotated[Path | None, typer.Option(metavar="FILE", help="The server's certificate (PEM).")] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="Its private key (PEM).")] = None,
    client_ca: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Clients must show a certificate signed by this one (mTLS).")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Clients must show a token of this file, one a line.")
    ] = None,
    public_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Manifests must be signed with this Ed25519 key.")
    ] = None,
    metrics: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="GET /metrics for Prometheus.")] = None,
    as_json: AsJson = False,
) -> None:
    """Serve models, and tails of cuts, over the Open Inference Protocol.

    gRPC with raw tensor contents, health and metadata; a model is called by the artifact's name, the tail behind a cut
    by NAME@ID; the version is the sha256 of the model file. Addresses other than the loopback need --client-ca or
    --token-file. SIGTERM drains.

    \b
    Example:
      edge-deploy serve build/resnet8/tflite-int8 --all-cuts
        --listen 0.0.0.0:8001 --tls-cert certs/server.pem --tls-key certs/server.key --client-ca certs/ca.pem
    """
    from edge_deploy.api.serve import serve
    from edge_deploy.core.errors import BadInput
    from edge_deploy.core.units import parse_bytes, parse_seconds
    from runtimes.serving.contracts import TlsFiles, parse_address
    from runtimes.serving.limits import Limits
    from runtimes.serving.security import read_tokens
    from runtimes.serving.server import Serving
    from runtimes.serving.shelf import Loading

    if client_ca is not None and tls_cert is None:
        raise BadInput("--client-ca: certificates of clients travel over TLS only; add --tls-cert and --tls-key.")
    host, port = parse_address(listen, where="--listen")
    tls = (
        None
        if tls_cert is None and tls_key is None
        else TlsFiles(authority=client_ca, certificate=tls_cert, key=tls_key)
    )
    serving = Serving(
        artifacts=tuple(artifacts),
        host=host,
        port=port,
        tls=tls,
        tokens=() if token_file is None else read_tokens(token_file),
        public_key=public_key,
        limits=Limits(
            message_bytes=None if most_message is None else parse_bytes(most_message, where="--most-message"),
            connections=connections,
            drain_s=parse_seconds(drain, where="--drain"),
        ),
        loading=Loading(
            memory_bytes=None if memory is None else parse_bytes(memory, where="--memory"),
            sessions=sessions,
            threads=threads,
            rows=batch,
            wait_s=parse_seconds(batch_wait, where="--batch-wait"),
            waiting=waiting,
            p95_s=None if tune_p95 is None else parse_seconds(tune_p95, where="--tune-p95"),
        ),
        warm=warm,
    )
    serve(
        serving,
        cuts=cut,
        all_cuts=all_cuts,
        workers=workers,
        metrics=None if metrics is None else parse_address(metrics, where="--metrics"),
        started=lambda where, running: _tell(where, running, serving, as_json=as_json),
        told=lambda text: print(f"- {text}", file=sys.stderr, flush=True),
    )


def _tell(where: Started, running: Workers, serving: Serving, *, as_json: bool) -> None:
    host = f"[{where.host}]" if ":" in where.host else where.host
    if as_json:
        print_json(
            {
                "address": f"{host}:{where.port}",
                "metrics": None if where.metrics_port is None else where.metrics_port,
                "models": [{"name": offer.info.name, "version": offer.info.version} for offer in running.offers],
            }
        )
    else:
        for offer in running.offers:
            print(f"{offer.info.name} (version {offer.info.version[:12]})")
        by = "client certificates" if serving.tls is not None and serving.tls.authority is not None else ""
        by = " and ".join(filter(None, (by, "tokens" if serving.tokens else ""))) or "open to this machine"
        print(f"serving on {host}:{where.port}, {'in the clear' if serving.tls is None else 'TLS'}, {by}")
        if where.metrics_port is not None:
            print(f"metrics on port {where.metrics_port}")
    sys.stdout.flush()


def certs(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write into; nothing in it is replaced.")],
    host: Annotated[
        list[str], typer.Option(metavar="NAME", help="Name or address that clients call the server by. Repeatable.")
    ] = ["localhost", "127.0.0.1"],  # noqa: B006
    client: Annotated[list[str], typer.Option(metavar="NAME", help="A client. Repeatable.")] = ["client"],  # noqa: B006
    days: Annotated[int, typer.Option(metavar="N", help="After which all certificates expire.")] = 30,
    as_json: AsJson = False,
) -> None:
    """Make a test authority: certificates of a server and of clients, to try TLS with.

    The authority's own key is thrown away. Use your own authority in production.

    \b
    Example:
      edge-deploy certs --out certs --host cloud.example --client gateway-1
    """
    from runtimes.serving.certificates import make_authority

    made = make_authority(out, hosts=host, clients=client, days=days)
    if as_json:
        print_json(made)
        return
    print(f"authority: {made.authority}")
    print(f"server {', '.join(host)}: {made.server[0]}, {made.server[1]}")
    for name, (certificate, key) in made.clients.items():
        print(f"client {name}: {certificate}, {key}")
