"""`edge-deploy doctor`."""

from __future__ import annotations

import typer

from edge_deploy.cli.output import AsJson, print_json

__all__ = ["command"]

SIGNS = {"ok": "ok     ", "note": "note   ", "problem": "PROBLEM"}


def command(as_json: AsJson = False) -> None:
    """Look for what is missing or wrong in this installation.

    Says what works, what does not, and what to do about it.
    """
    from edge_deploy.doctor import diagnose

    findings = diagnose()
    if as_json:
        print_json({"findings": list(findings)})
    else:
        for finding in findings:
            print(f"{SIGNS[finding.level]}  {finding.text}")
            if finding.remedy:
                print(f"         -> {finding.remedy}")
    if any(finding.level == "problem" for finding in findings):
        raise typer.Exit(1)
