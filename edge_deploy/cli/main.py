"""`edge-deploy`: commands, exit codes, and nothing heavy until a command runs."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import traceback
from types import FrameType
from typing import NoReturn

import typer

from edge_deploy.cli import (
    bench_suite,
    benchmark,
    calibrate,
    codecs,
    compare,
    compress,
    convert,
    cuts,
    debug,
    demo,
    doctor,
    exits,
    export_repository,
    export_tflm,
    fit,
    inspect,
    list_,
    loadgen,
    monitor,
    package,
    plan,
    profile,
    qat,
    replay,
    report,
    run,
    search,
    serve,
    sign,
    simulate,
    split,
    study,
    train,
    validate_simulation,
    verify,
)
from edge_deploy.core.errors import EdgeDeployError, error_to_json
from edge_deploy.core.threads import QUIET_THREADS

__all__ = ["app", "main"]

INTERRUPTED = 130
app = typer.Typer(
    name="edge-deploy",
    help="Trained recommendation models and CNNs as verified INT8/INT4 TFLite and ExecuTorch artifacts.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"max_content_width": 120},
    epilog="Exit codes: 0 done, 2 usage, 3 bad input, 4 unsupported, 5 missing package, 6 toolchain failure, "
    "7 device, 8 verification failed, 9 no feasible plan, 130 interrupted. --debug shows tracebacks, "
    "--json prints the result as JSON.",
)
app.command("convert", short_help="Convert a trained model, verify it, write a report.")(convert.command)
app.command("train")(train.command)
app.command("qat")(qat.command)
app.command("calibration")(calibrate.command)
app.command("inspect")(inspect.command)
app.command("verify")(verify.command)
app.command("sign")(sign.sign)
app.command("verify-signature")(sign.verify_signature)
app.command("debug")(debug.command)
app.command("monitor")(monitor.command)
app.command("search")(search.command)
app.command("benchmark")(benchmark.command)
app.command("compare")(compare.command)
app.command("compress", short_help="Compress the tables of a trained checkpoint.")(compress.command)
app.command("bench-suite")(bench_suite.command)
app.command("loadgen")(loadgen.command)
app.command("fit", short_help="Say whether a model fits a device, or what would help.")(fit.command)
app.command("export-tflm")(export_tflm.command)
app.command("package")(package.command)
app.command("cuts")(cuts.command)
app.command("codecs", short_help="Measure what codecs send and cost at each cut.")(codecs.command)
app.command("profile")(profile.command)
app.command("plan")(plan.command)
app.command("split")(split.command)
app.command("simulate")(simulate.command)
app.command("validate-simulation")(validate_simulation.command)
app.command("run", short_help="Answer requests, split between here and a cloud.")(run.command)
app.command("replay")(replay.command)
app.command("serve", short_help="Serve models and tails of cuts to edges.")(serve.command)
app.command("certs", short_help="Make a test authority with certificates.")(serve.certs)
app.command("export-repository", short_help="Write a model folder for MLServer.")(export_repository.command)
app.command("report", short_help="Write artifacts and benchmarks as one HTML page.")(report.command)
app.command("doctor", short_help="Look for what is missing or wrong in the installation.")(doctor.command)
app.command("list")(list_.command)
app.command("demo")(demo.command)
app.add_typer(study.app, name="study")
app.add_typer(exits.app, name="exits", short_help="Answer on the edge when an early exit is sure.")


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run one command and exit with its code; every error ends in a message, a traceback only with --debug."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    with_tracebacks = "--debug" in given
    words = [word for word in given if word != "--debug"]
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s: %(message)s")
    signal.signal(signal.SIGTERM, _terminate)
    for name, value in QUIET_THREADS.items():
        os.environ.setdefault(name, value)
    sys.exit(_run(words, debug=with_tracebacks))


def _run(words: list[str], *, debug: bool) -> int:
    try:
        code = app(words, standalone_mode=False, prog_name="edge-deploy")
        if code == INTERRUPTED:  # what typer makes of Ctrl-C
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except EdgeDeployError as error:
        if debug:
            traceback.print_exc()
        _complain(error, as_json="--json" in words)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted: nothing was written.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        return 0
    except OSError as error:
        if debug:
            traceback.print_exc()
        print(f"error: {error.filename or 'the file system'}: {error.strerror or error}.", file=sys.stderr)
        return EdgeDeployError.exit_code
    except Exception as error:  # noqa: BLE001  # the last line of defence: no traceback without --debug
        return _usage_or_defect(error, debug=debug)


def _usage_or_defect(error: Exception, *, debug: bool) -> int:
    show = getattr(error, "show", None)  # a usage error of the command line
    if show is not None:
        show()
        return int(getattr(error, "exit_code", 2))
    if type(error).__name__ == "Abort":
        print("interrupted: nothing was written.", file=sys.stderr)
        return INTERRUPTED
    if debug:
        traceback.print_exc()
    else:
        print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
        print("This is a defect of edge-deploy; run again with --debug and report the traceback.", file=sys.stderr)
    return EdgeDeployError.exit_code


def _complain(error: EdgeDeployError, *, as_json: bool) -> None:
    for problem in error.problems or (type(error).__name__,):
        print(f"error: {problem}", file=sys.stderr)
    if as_json:
        print(json.dumps({"error": error_to_json(error)}, indent=1))


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
