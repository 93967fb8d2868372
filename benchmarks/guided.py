"""Bad input, guided by coverage: what reaches new lines of gracl is kept, and changed again.

    pip install atheris
    python benchmarks/guided.py FOLDER [--seconds 170] [--seed 0] [--only tables,boxes] [--out guided]

libFuzzer starts from the seeds of fuzz.py, and the same is asked for: an input is read, or refused in
words. Anything else is a finding, and so is what its size does not excuse: none has more than 64 KiB.
gracl alone is instrumented. FOLDER keeps, by target, the inputs that led on (`corpus`), a short one of
each finding (`kept`) and what libFuzzer said (`log`). Each call adds a round to each target: it goes on
from the corpus of the one before, and feeds first what was found then.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measuring import command, save

if TYPE_CHECKING:
    from guided_forms import Target

NAMES = (
    "tables", "pairs", "boxes", "tracks", "reviews", "hugging face", "settings", "runs", "descriptions",
    "weights", "features", "pictures", "names", "requests", "decisions",
)  # fmt: skip
LONGEST = 64 * 1024
"""Bytes of an input."""
CPU_SECONDS, SECONDS = 3.0, 20
"""Of the processor, instrumented, that an input may take; of the clock, where it never ends."""
MEMORY = 0.5
"""GiB above what the process held before its first input."""
COMPILED = ("gracl._jaccard_numba", "gracl._dbscan_numba", "gracl._ranks_numba")
"""Numba compiles them, and would find the counters there."""


# -- the process that feeds -----------------------------------------------------------------------


@dataclass
class Keeper:
    """Feeds each input, and keeps the shortest of each kind of finding."""

    target: Target
    home: Path
    findings: dict[str, dict[str, Any]] = field(default_factory=dict)
    endings: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    told: float = 0.0

    def feed(self, content: bytes) -> None:
        """One input; whatever comes of it, the next follows."""
        from fuzz_watch import judge

        start = time.process_time()
        ending, words = judge(lambda: self.target.feed(content))
        seconds = time.process_time() - start
        if ending != "crash" and seconds > CPU_SECONDS:
            ending, words = "crash", f"{seconds:.0f} s of the processor"
        if ending == "crash":
            self._keep(content, words)
        self.endings[ending] += 1
        self.slowest = max(self.slowest, seconds)
        if time.monotonic() - self.told > 0.5:
            self._tell()

    def _keep(self, content: bytes, words: str) -> None:
        what, _, where = words.partition(" | ")
        key = re.sub(r"[^A-Za-z]+", " ", what.partition(":")[0]) + where
        known = self.findings.get(key)
        self.findings[key] = {"words": words, "input": content.hex(), "times": 1}
        if known is not None:
            self.findings[key]["times"] += known["times"]
            if len(known["input"]) <= 2 * len(content):
                self.findings[key] |= {"words": known["words"], "input": known["input"]}
                return
        name = hashlib.sha256(key.encode()).hexdigest()[:12]
        (self.home / "kept" / name).write_bytes(content)
        self._tell()

    def _tell(self) -> None:
        self.told = time.monotonic()
        told = {
            **self.endings,
            "slowest_cpu_seconds": round(self.slowest, 3),
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "findings": self.findings,
        }
        unfinished = self.home / "told.unfinished"
        unfinished.write_text(json.dumps(told))
        unfinished.replace(self.home / "told")


def feed(name: str, seconds: int, seed: int, home: Path, scratch: Path) -> None:
    """Fuzzes one target until its time is over; does not return."""
    import atheris

    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what readers print
    with atheris.instrument_imports(include=["gracl"], exclude=COMPILED):
        import numpy as np

        from guided_built import BUILT
        from guided_files import FILES

        target = {**FILES, **BUILT}[name](scratch)
    keeper = Keeper(target, home)
    _fill(home, target)

    def change(given: bytes, longest: int, at: int) -> bytes:
        if target.change is None or at % 2:
            changed: bytes = atheris.Mutate(given, longest)
            return changed
        return target.change(np.random.default_rng(at), given)[:longest]

    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    (home / "held").write_text(str(held))
    flags = {
        "max_total_time": seconds,
        "max_len": LONGEST,
        "timeout": SECONDS,
        "rss_limit_mb": held + round(MEMORY * 1024),
        "seed": seed + 1,  # 0 would be the clock's
        "dict": home / "words",
        "artifact_prefix": f"{home}/stopped-",
        "print_final_stats": 1,
        "detect_leaks": 0,
        "len_control": 0,
    }
    words = [f"-{flag}={value}" for flag, value in flags.items()]
    atheris.Setup([sys.argv[0], *words, str(home / "corpus")], keeper.feed, custom_mutator=change)
    atheris.Fuzz()


def _fill(home: Path, target: Target) -> None:
    """Seeds, what was found before, and a dictionary of the words in the seeds."""
    corpus = home / "corpus"
    for place, content in enumerate(target.seeds):
        (corpus / f"seed-{place}").write_bytes(content)
    for path in (home / "kept").iterdir():
        (corpus / f"found-{path.name}").write_bytes(path.read_bytes())
    known = {word for seed in target.seeds for word in re.findall(rb"[A-Za-z_]{2,20}", seed[:4000])}
    known |= {b"nan", b"inf", b"-1", b"1e400", b"null", b"\\x00", b"\\xff\\xfe", b"0x10", b"1_0"}
    (home / "words").write_bytes(b"".join(b'"%s"\n' % word for word in sorted(known)[:400]))


# -- the process that watches ---------------------------------------------------------------------

_LINE = re.compile(
    r"#(?P<executions>\d+)\t(?P<kind>\w+) +cov: (?P<cov>\d+) ft: (?P<ft>\d+) corp: (?P<corpus>\d+)/"
)
_STOPPED = re.compile(r"stopped-(timeout|oom|crash|leak)-\w+")


def fuzz(name: str, seconds: int, seed: int, home: Path) -> dict[str, Any]:
    """A round of one target; where an input ends the process, another one goes on behind it."""
    for inner in ("corpus", "kept"):
        (home / inner).mkdir(parents=True, exist_ok=True)
    start, said, stopped, told = time.monotonic(), "", [], dict[str, Any]()
    total: Counter[str] = Counter()
    findings: dict[str, dict[str, Any]] = {}
    executions = spent = 0
    while (left := seconds - round(time.monotonic() - start)) > 5 or not said:
        (home / "told").unlink(missing_ok=True)
        worker = [sys.executable, __file__, str(home), "--worker", name, "--seconds", str(max(left, 5))]
        with tempfile.TemporaryDirectory() as scratch:
            own_flags = ["--seed", str(seed), "--scratch", scratch]
            done = subprocess.run([*worker, *own_flags], stderr=subprocess.PIPE, check=False)
        own = done.stderr.decode(errors="replace")
        said += own
        if (home / "told").is_file():
            told = json.loads((home / "told").read_text())
            total.update({kind: told.get(kind, 0) for kind in ("read", "refused", "crash")})
            findings |= told["findings"]
        lines = list(_LINE.finditer(own))
        executions += int(lines[-1]["executions"]) if lines else 0
        spent += int((re.findall(r"in (\d+) second", own) or ["0"])[-1])
        if done.returncode == 0:
            break
        stopped += sorted({match.group(0) for match in _STOPPED.finditer(own)}) or [own[-500:]]
        if len(stopped) > 9 or not lines:
            break
        seed += 1
    (home / "log").write_text(said)
    lines = list(_LINE.finditer(said))
    if not lines:
        raise RuntimeError(f"{name} did not begin:\n{said[-3000:]}")
    first = next((line for line in lines if line["kind"] == "INITED"), lines[0])
    return {
        "seconds": spent,
        "executions": executions,
        "executions_per_second": round(executions / max(spent, 1), 1),
        "edges_at_start": int(first["cov"]),
        "edges": max(int(line["cov"]) for line in lines),
        "features_at_start": int(first["ft"]),
        "features": max(int(line["ft"]) for line in lines),
        "corpus": int(lines[-1]["corpus"]),
        **{kind: total[kind] for kind in ("read", "refused", "crash")},
        "slowest_cpu_seconds": told.get("slowest_cpu_seconds"),
        "peak_gib_above_start": _peak(home, told),
        "findings": [
            {"words": one["words"], "times": one["times"], "bytes": len(one["input"]) // 2}
            for one in findings.values()
        ],
        "stopped": stopped,
    }


def _peak(home: Path, told: dict[str, Any]) -> float:
    peak: int = told.get("peak_mib", 0)
    return round((peak - int((home / "held").read_text())) / 1024, 3)


def _shortened(words: str) -> str:
    """Of an error, without folders of this machine."""
    what, _, where = re.sub(r"/\S*/tmp\w{8}\b", "FOLDER", words).partition(" | ")
    return f"{what[:120]} | {where}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="for corpora and findings; made if it is not there")
    parser.add_argument("--seconds", type=int, default=170, help="of a target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(NAMES), help="targets, by commas")
    parser.add_argument("--out", default="guided", help="name in results; none if empty")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        feed(options.worker, options.seconds, options.seed, options.folder, options.scratch)
    for name in options.only.split(","):
        home = options.folder.resolve() / name.replace(" ", "_")
        found = fuzz(name, options.seconds, options.seed, home)
        print(name, {key: value for key, value in found.items() if key != "findings"}, flush=True)
        for one in found["findings"]:
            print("   ", one["words"], flush=True)
        with (home / "rounds").open("a") as file:
            typed = command().replace(str(options.folder), "FOLDER")
            file.write(json.dumps({"command": typed, "seed": options.seed, **found}) + "\n")
        if options.out:
            save(options.out, _content(options))


def _content(options: argparse.Namespace) -> dict[str, Any]:
    """All rounds of all targets."""
    targets = {}
    for name in NAMES:
        rounds = options.folder / name.replace(" ", "_") / "rounds"
        if rounds.is_file():
            targets[name] = [json.loads(line) for line in rounds.read_text().splitlines()]
    every = [one for rounds in targets.values() for one in rounds]
    for finding in (finding for one in every for finding in one["findings"]):
        finding["words"] = _shortened(finding["words"])
    return {
        "atheris": metadata.version("atheris"),
        "bounds": {
            "input_bytes": LONGEST,
            "cpu_seconds": CPU_SECONDS,
            "seconds": SECONDS,
            "gib_above_start": MEMORY,
        },
        "total": {
            **{name: sum(one[name] for one in every) for name in ("seconds", "executions")},
            "findings_by_round": [
                sum(
                    len(rounds[at]["findings"]) + len(rounds[at]["stopped"])
                    for rounds in targets.values()
                    if at < len(rounds)
                )
                for at in range(max(map(len, targets.values())))
            ],
        },
        "targets": targets,
    }


if __name__ == "__main__":
    main()
