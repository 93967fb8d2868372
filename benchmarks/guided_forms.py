"""Inputs of guided.py: a target, and changes of files that keep their form.

A byte changed anywhere would rarely get beyond the parser; so cells of tables change, values of trees,
and the heads of files, which say what they hold.
"""

from __future__ import annotations

import csv
import io
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

import fuzz_files
from fuzz_files import YAMLS, N
from fuzz_images import damaged
from fuzz_watch import Ending

Rng = np.random.Generator
Change = Callable[[Rng, str, bytes], bytes]


@dataclass(frozen=True)
class Target:
    """A family of readers."""

    feed: Callable[[bytes], Ending]
    """Hands an input over; raises whatever the reader does."""
    seeds: Sequence[bytes]
    change: Callable[[Rng, bytes], bytes] | None = None
    """A change that keeps the form; None where bytes are what the input is built from."""


def of_files(
    names: Sequence[str],
    content: Callable[[str], bytes | Sequence[bytes]],
    read: Callable[[str, bytes], None],
    change: Change,
) -> Target:
    """A target whose inputs are a byte for the reader's name, and the file."""

    def feed(given: bytes) -> Ending:
        if given:
            read(names[given[0] % len(names)], given[1:])
        return "read"

    def changed(rng: Rng, given: bytes) -> bytes:
        first = given[:1] or b"\0"
        name = names[first[0] % len(names)]
        if rng.random() < 0.2:
            return first + damaged(rng, given[1:] or b"\0")[1]
        try:
            return first + change(rng, name, given[1:])
        except Exception:  # what was damaged before may have no form to keep
            return first + damaged(rng, given[1:] or b"\0")[1]

    seeds = []
    for place, name in enumerate(names):
        found = content(name)
        several = [found] if isinstance(found, bytes) else found
        seeds += [bytes([place]) + one for one in several]
    return Target(feed, seeds, changed)


def change_cells(rng: Rng, name: str, content: bytes) -> bytes:
    """Another cell, row or column of a CSV, or of a text that is split by commas or by blanks."""
    apart = " " if name == "ultralytics" else ","
    try:
        text = content.decode("utf-8-sig")
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=apart))
    except (UnicodeDecodeError, csv.Error):
        return damaged(rng, content or b"\0")[1]
    rows = [row for row in rows if row]
    has_head = name not in ("mot", "ultralytics")
    head, body = (rows[0], rows[1:]) if has_head and rows else ([], rows)
    if not body:
        return content + b"\n1,1,1,1,1,1"
    columns, cells, _ = fuzz_files.cells_changed(rng, head, [list[object](row) for row in body])
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=apart).writerows([columns, *cells] if has_head else cells)
    return out.getvalue().encode(errors="surrogatepass")


def change_values(rng: Rng, _: str, content: bytes) -> bytes:
    """Another value in a JSON file."""
    try:
        return json.dumps(fuzz_files.value_changed(rng, json.loads(content))[0]).encode()
    except (ValueError, RecursionError):
        return damaged(rng, content or b"\0")[1]


def change_lines(rng: Rng, name: str, content: bytes) -> bytes:
    """Another value in one line of JSON, or lines in another order."""
    lines = content.split(b"\n")
    at = int(rng.integers(len(lines)))
    draw = rng.random()
    if draw < 0.7:
        lines[at] = change_values(rng, name, lines[at])
    elif draw < 0.85:
        del lines[at]
    else:
        lines.insert(int(rng.integers(len(lines))), lines[at])
    return b"\n".join(lines)


def change_settings(rng: Rng, _: str, content: bytes) -> bytes:
    """Another value in a YAML file, or a line of a hostile one."""
    if rng.random() < 0.3:
        lines = content.split(b"\n")
        other = YAMLS[rng.integers(len(YAMLS))].encode(errors="replace")[:2000]
        lines.insert(int(rng.integers(len(lines) + 1)), other)
        return b"\n".join(lines)
    try:
        held, _ = fuzz_files.value_changed(rng, yaml.safe_load(content))
        return yaml.safe_dump(held, allow_unicode=True).encode(errors="surrogatepass")
    except Exception:  # PyYAML raises what it likes
        return damaged(rng, content or b"\0")[1]


def change_head(rng: Rng, name: str, content: bytes) -> bytes:
    """Another value in the header of safetensors, which stays whole; of others bytes at the start."""
    if not name.endswith(".safetensors"):
        cut = int(rng.integers(16, 4000))
        return damaged(rng, content[:cut] or b"\0")[1] + content[cut:]
    try:
        (length,) = struct.unpack("<Q", content[:8])
        about = json.loads(content[8 : 8 + length])
        own = about.get("__metadata__", {})
        if "gracl" in own and rng.random() < 0.5:
            own["gracl"] = change_values(rng, name, own["gracl"].encode()).decode()
        else:
            about, _ = fuzz_files.value_changed(rng, about)
        header = json.dumps(about).encode()
    except (struct.error, ValueError, AttributeError, TypeError, RecursionError):
        return damaged(rng, content or b"\0")[1]
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def change_arrays(rng: Rng, name: str, content: bytes) -> bytes:
    """Another array in a .npz; cells of a CSV; the foot of a parquet file, which says what it holds."""
    if name.endswith(".csv"):
        return change_cells(rng, name, content)
    if name.endswith(".parquet"):
        cut = int(rng.integers(1, 3000))
        return content[:-cut] + damaged(rng, content[-cut:] or b"\0")[1]
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as held:
            arrays: dict[str, Any] = {key: held[key] for key in held.files}
        key = str(rng.choice([*arrays]))
        if key == "about" and rng.random() < 0.7:
            arrays[key] = np.array(change_values(rng, name, str(arrays[key]).encode()).decode())
        elif rng.random() < 0.5:
            arrays[key] = arrays[key].reshape(-1)[: int(rng.integers(3 * N))]
        else:
            arrays[key] = arrays[key].astype(str(rng.choice(["f8", "f2", "i8", "u1", "U3", "?", "c8"])))
        file = io.BytesIO()
        np.savez(file, **arrays)
        return file.getvalue()
    except Exception:  # numpy raises what it likes at what it had damaged itself
        return damaged(rng, content or b"\0")[1]
