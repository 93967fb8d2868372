"""Writes down how much of gracl the tests reached, as `make coverage` counted it.

python benchmarks/reached.py --of "the fast tests"
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from measuring import save

LOW = 90.0
"""Percent; files below are named."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--of", default="all tests", help="which tests were counted")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "coverage.json"
        # Below the least share, coverage writes the report all the same and says so.
        subprocess.run([sys.executable, "-m", "coverage", "json", "-q", "-o", str(report)], check=False)
        found: dict[str, Any] = json.loads(report.read_text())
    totals = found["totals"]
    low = {
        name: round(file["summary"]["percent_covered"], 1)
        for name, file in found["files"].items()
        if file["summary"]["percent_covered"] < LOW
    }
    content = {
        "command": "make coverage",
        "tests": arguments.of,
        "percent_of_lines": round(100 * totals["covered_lines"] / totals["num_statements"], 1),
        "percent_of_branches": round(100 * totals["covered_branches"] / totals["num_branches"], 1),
        "statements": totals["num_statements"],
        "branches": totals["num_branches"],
        "files_below_90_percent": low,
    }
    save("coverage", content)
    print(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
