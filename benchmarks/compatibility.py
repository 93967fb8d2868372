"""Does gracl work in this environment? The fast tests and the README's main command, both counted.

    python benchmarks/compatibility.py newest

Run it with the Python of the environment that is asked about, where gracl has its extras `test` and
`report`. It adds the row of that environment to benchmarks/results/compatibility.json, in place of an
older one of that name.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from gracl.runs import Run
from measuring import command, describe

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "compatibility.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="of the row, such as oldest or newest")
    parser.add_argument("--workers", default="2", help="test processes")
    asked = parser.parse_args()
    tests = run_tests(asked.workers)
    demo = run_demo()
    row = {"name": asked.name, **describe(), "packages": packages(), "command": command()}
    add({**row, "tests": tests, "demo": demo})
    print(json.dumps({"tests": tests, "demo": demo}, indent=1))
    sys.exit(bool(tests["failed"] or not tests["passed"] or "failed" in demo))


def packages() -> dict[str, str]:
    """What gracl and its tests depend on, as installed: name -> version."""
    named = (re.match(r"[\w.-]+", line) for line in metadata.requires("gracl") or [])
    found = {}
    for name in sorted({match.group().lower() for match in named if match}):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # of an extra that was not asked for
    return found


def run_tests(workers: str) -> dict[str, Any]:
    """Counts of the fast tests, which failed, and for what reasons tests were left out."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        typed = ["-m", "pytest", "-q", "-n", workers, "-m", "not slow"]
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, *typed, f"--junitxml={report}"],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=False,
        )
        seconds = time.perf_counter() - started
        cases = list(ElementTree.parse(report).iter("testcase"))
    bad = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    out = [case for case in cases if case.find("skipped") is not None]
    return {
        "command": " ".join(["python", *typed[:-1], "'not slow'"]),
        "passed": len(cases) - len(bad) - len(out),
        "failed": sorted(f"{case.get('classname')}.{case.get('name')}" for case in bad),
        "skipped": dict(sorted(Counter(map(reason, out)).items())),
        "seconds": round(seconds),
    }


def reason(case: ElementTree.Element) -> str:
    """Why a test was left out."""
    skipped = case.find("skipped")
    return "" if skipped is None else skipped.get("message", "")


def run_demo() -> dict[str, Any]:
    """mAP before and after `gracl demo`, and its seconds; or the last line of what it said."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        typed = [sys.executable, "-m", "gracl", "demo", "--out", str(out)]
        started = time.perf_counter()
        done = subprocess.run(
            typed,
            env={**os.environ, "GRACL_CACHE": folder},
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - started
        if done.returncode:
            return {"failed": (done.stderr or done.stdout).strip().splitlines()[-1:]}
        run = Run(out)
        scores = {"before": run.before, "after": run.after}
        found = {f"mAP {when}": round(score["scores"]["mAP"], 4) for when, score in scores.items()}
    return {"command": "gracl demo", **found, "seconds": round(seconds)}


def add(row: dict[str, Any]) -> None:
    """The row takes its place in the file, sorted by Python and torch."""
    rows = json.loads(RESULTS.read_text())["environments"] if RESULTS.is_file() else []
    rows = [other for other in rows if other["name"] != row["name"]] + [row]
    rows.sort(key=lambda row: [numbers(row["python"]), numbers(row["packages"]["torch"])])
    RESULTS.write_text(json.dumps({"environments": rows}, indent=1) + "\n")


def numbers(version: str) -> list[int]:
    """A version's leading numbers, to sort by."""
    return [int(part) for part in re.findall(r"\d+", version)[:3]]


if __name__ == "__main__":
    main()
