"""`edge-deploy run`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_deploy.cli.output import AsJson, human_bytes, print_json, print_table, progress_bar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from edge_deploy.core.errors import EdgeDeployError
    from partitioner.live.agreement import Agreement
    from partitioner.live.session import LiveSession
    from partitioner.live.status import Status

__all__ = ["command"]

AT_ONCE = 32


def command(
    artifact: Annotated[
        Path, typer.Argument(metavar="ARTIFACT", help="The whole model: a folder with manifest.json, or a .tflite.")
    ],
    cloud: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where `edge-deploy serve` serves its tails.")],
    inputs: Annotated[
        Path, typer.Option(metavar="DATA", help="What to answer: an npz, a folder of images, a description.")
    ],
    halves: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="What `edge-deploy split` wrote. Without: all-edge and all-cloud only."),
    ] = None,
    all_cuts: Annotated[
        bool, typer.Option("--all-cuts", help="Cut the model at every legal prefix first, instead of --halves.")
    ] = False,
    cut: Annotated[str, typer.Option(metavar="ID", help="Stay at this cut. Without: the policy moves it.")] = "",
    policy: Annotated[str, typer.Option(metavar="NAME", help="As for simulate.")] = "hysteresis",
    edge: Annotated[
        Path | None,
        typer.Option(metavar="PROFILE", help="profile.json of this artifact here. Without: halves are timed first."),
    ] = None,
    cloud_profile: Annotated[Path | None, typer.Option(metavar="PROFILE", help="The same in the cloud.")] = None,
    train: Annotated[
        list[str], typer.Option(metavar="TRACE", help="Traces that the policy learns from. Repeatable.")
    ] = [],  # noqa: B006
    rate: Annotated[
        str, typer.Option(metavar="N/TIME", help="Requests, e.g. 5/s. Default: one when the last is answered.")
    ] = "",
    repeat: Annotated[int, typer.Option(metavar="N", help="Go through the inputs N times.", min=1)] = 1,
    out: Annotated[Path | None, typer.Option(metavar="NPZ", help="Write the outputs, in the order of inputs.")] = None,
    record: Annotated[Path | None, typer.Option(metavar="JSONL", help="Write everything that happens.")] = None,
    codec: Annotated[str, typer.Option(metavar="NAME", help="How tensors travel, as for simulate.")] = "raw",
    switch: Annotated[
        str, typer.Option(metavar="WAY", help="warm-standby, load-beside or pause-and-reload.")
    ] = "warm-standby",
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Most memory of loaded halves, e.g. 64MiB. Default: no limit.")
    ] = None,
    fallback: Annotated[
        str, typer.Option(metavar="TIME", help="Answer on the edge when the cloud has not by then, or never.")
    ] = "1s",
    deadline: Annotated[str | None, typer.Option(metavar="TIME", help="An answer later than that is an error.")] = None,
    tick: Annotated[str, typer.Option(metavar="TIME", help="Time between decisions.")] = "1s",
    threads: Annotated[int, typer.Option(metavar="N", help="Of the interpreter.", min=1)] = 1,
    tls_ca: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TLS: the server's certificate must be signed by this one.")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(metavar="FILE", help="This client's certificate (PEM).")] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="Its private key (PEM).")] = None,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Show the server the first token of this file.")
    ] = None,
    dashboard: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Show a live page there, e.g. 127.0.0.1:8080.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Answer requests with a model that is split between here and a cloud.

    Moves the cut as conditions change; answers on the edge alone when the cloud does not.

    \b
    Example:
      edge-deploy run build/resnet8/tflite-int8 --halves build/halves
        --cloud 10.0.0.2:8001 --inputs images.npz --record run.jsonl
    """
    import contextlib

    import numpy as np

    from converters.samples import save_arrays
    from edge_deploy.api.run import RunRequest, inputs_of, live
    from edge_deploy.core.errors import EdgeDeployError
    from edge_deploy.core.units import parse_bytes, parse_seconds
    from partitioner.live.options import LiveOptions
    from partitioner.setting import Setting
    from runtimes.serving.contracts import Endpoint, TlsFiles, parse_address
    from runtimes.serving.security import read_tokens

    host, port = parse_address(cloud, where="--cloud")
    tls = None
    if tls_ca is not None or tls_cert is not None or tls_key is not None:
        tls = TlsFiles(authority=tls_ca, certificate=tls_cert, key=tls_key)
    never = fallback == "never"
    setting = Setting(
        tick_s=parse_seconds(tick, where="--tick"),
        fallback_after_s=float("inf") if never else parse_seconds(fallback, where="--fallback"),
    )
    options = LiveOptions(
        setting=setting,
        codec=codec,
        switch=switch,
        memory_bytes=float("inf") if memory is None else parse_bytes(memory, where="--memory"),
        fallback=not never,
        deadline_s=float("inf") if deadline is None else parse_seconds(deadline, where="--deadline"),
        threads=threads,
    )
    request = RunRequest(
        artifact=artifact,
        cloud=Endpoint(host=host, port=port, tls=tls, token="" if token_file is None else read_tokens(token_file)[0]),
        halves=halves,
        all_cuts=all_cuts,
        cut=cut,
        policy=policy,
        edge=edge,
        cloud_profile=cloud_profile,
        train=tuple(train),
        options=options,
        record=record,
    )
    feeds = list(inputs_of(artifact, inputs))
    pause_s = _pause_s(rate)
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(progress_bar(3))
        session = stack.enter_context(live(request, progress=progress))
        if dashboard is not None:
            from edge_deploy.api.dashboard import Dashboard

            at, page_port = parse_address(dashboard, where="--dashboard")
            title = f"{artifact.name} with {cloud}"
            page = stack.enter_context(Dashboard(title, lambda: session.status, host=at, port=page_port))
            progress(f"live page: {page.url}")
        agreed = session.agreement(feeds[0]) if feeds else ()
        progress(f"answer {len(feeds) * repeat} requests")
        found = _ask(session, feeds, repeat, pause_s)
        status = session.settled_status()
    failed = [one for one in found if isinstance(one, EdgeDeployError)]
    answers = [one for one in found[: len(feeds)] if not isinstance(one, EdgeDeployError)]
    if out is not None and len(answers) == len(feeds):
        names = answers[0] if answers else ()
        save_arrays({name: np.concatenate([answer[name] for answer in answers]) for name in names}, out)
    if as_json:
        print_json({"status": status, "agreement": agreed, "errors": [str(error) for error in failed]})
    else:
        _print(status, artifact, cloud)
        _print_agreement(agreed)
        for path in (out, record):
            if path is not None and path.exists():
                print(f"written: {path}")
    if failed:
        raise type(failed[0])(f"{len(failed)} of {len(found)} requests got no answer; the first: {failed[0]}")


def _ask(
    session: LiveSession, feeds: Sequence[Mapping[str, np.ndarray]], repeat: int, pause_s: float
) -> list[dict[str, np.ndarray] | EdgeDeployError]:
    """Answers and errors, in the order of the requests; with a rate, requests do not wait for each other."""
    from concurrent.futures import ThreadPoolExecutor

    from partitioner.live.errors import DeadlineMissed
    from runtimes.serving.errors import CloudError

    def ask(number: int) -> dict[str, np.ndarray] | EdgeDeployError:
        try:
            return session.infer(feeds[number % len(feeds)])
        except (CloudError, DeadlineMissed) as error:
            return error

    count = len(feeds) * repeat
    if not pause_s:
        return [ask(number) for number in range(count)]
    begun = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as threads:
        asked = []
        for number in range(count):
            time.sleep(max(0.0, begun + number * pause_s - time.perf_counter()))
            asked.append(threads.submit(ask, number))
        return [one.result() for one in asked]


def _print(status: Status, artifact: Path, cloud: str) -> None:
    rows = [(cut, str(count)) for cut, count in status.by_cut.items()]
    print_table(f"{artifact} with {cloud}, {status.policy}", ("cut in force", "requests"), rows)
    print("answered: " + ", ".join(f"{count} {how}" for how, count in status.answered.items() if count))
    milliseconds = (f"{seconds * 1e3:.3g}" for seconds in (status.p50_s, status.p95_s, status.p99_s))
    print("latency ms: p50 {}, p95 {}, p99 {}".format(*milliseconds))
    print(f"sent {human_bytes(status.up_bytes)}, received {human_bytes(status.down_bytes)}, switches {status.switches}")
    print(f"cloud: {status.cloud}")
    if status.last_reason:
        print(f"last fallback: {status.last_reason}")


def _print_agreement(found: Sequence[Agreement]) -> None:
    answered = [one for one in found if not one.failed]
    same = sum(one.identical for one in answered)
    if answered and same == len(answered):
        print(f"edge and cloud give the same bits behind all {same} cuts")
    elif answered:
        most = max(one.largest for one in answered)
        print(f"edge and cloud give the same bits behind {same} of {len(answered)} cuts; else up to {most:.3g} apart")
    for one in found:
        if one.failed:
            print(f"cut {one.cut}: not compared: {one.failed}")


def _pause_s(text: str) -> float:
    from edge_deploy.core.errors import BadInput
    from edge_deploy.core.units import parse_seconds

    if not text:
        return 0.0
    count, _, unit = text.partition("/")
    try:
        return parse_seconds(f"1 {unit or 's'}", where="--rate") / float(count)
    except (ValueError, ZeroDivisionError, BadInput):
        raise BadInput(f"--rate {text!r}: must be a number of requests in a time, e.g. 5/s or 30/min.") from None
