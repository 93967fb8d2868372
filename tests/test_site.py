"""The pages: what they quote is in the source, what they link exists, and they build into a site."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import gracl
from gracl.cli import ACTIONS, main
from gracl.config import Config
from gracl.data import protocols

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
SOURCE = sorted((ROOT / "src" / "gracl").rglob("*.py"))


@pytest.fixture(scope="module")
def tools():
    """The scripts that make pages, importable."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DOCS / "tools")
        import commands
        import reference

        yield reference, commands
    for name in ("commands", "reference", "sources"):
        sys.modules.pop(name, None)


# -- links and pages ------------------------------------------------------------------------------


def outside_fences(text):
    return re.sub(r"^(`{3,})[^\n]*\n.*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", [*PAGES, *ROOT.glob("*.md"), ROOT / "examples" / "README.md"])
def test_every_file_that_is_linked_exists(page):
    for target in re.findall(r"\]\(([^)#\s]+)", outside_fences(page.read_text(encoding="utf-8"))):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_every_page_has_a_place_in_the_site():
    mkdocs = (ROOT / "mkdocs.yml").read_text()
    listed = re.findall(r"^ +- .*: ([\w/]+\.md)$", mkdocs, flags=re.MULTILINE)
    assert len(listed) == len(set(listed))
    missing = {page.relative_to(DOCS).as_posix() for page in PAGES} - set(listed)
    assert not missing, f"give {', '.join(sorted(missing))} a line in nav of mkdocs.yml"


def test_no_page_asks_another_server_for_a_picture_or_a_script():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"!\[[^\]]*\]\(https?:|<(script|link|img|iframe)\b", text), page.name


@pytest.mark.slow
def test_the_site_builds_and_asks_nobody_for_anything(tmp_path):
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--site-dir",
        str(tmp_path / "site"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    built = sorted((tmp_path / "site").rglob("*.html"))
    assert {"index.html", "reference.html", "readme.html", "contributing.html"} <= {
        p.name for p in built
    }
    for page in built:
        text = page.read_text(encoding="utf-8")
        for tag in re.findall(r"<(?:script|img|iframe)\b[^>]*\bsrc=[^>]*>|<link\b[^>]*>", text):
            if 'rel="canonical"' not in tag:
                assert not re.search(r"(src|href)=\"?(https?:)?//", tag), (page.name, tag)
    # What the pages link outside of docs/ went along, and can be read there.
    method = tmp_path / "site" / "repository" / "src" / "gracl" / "methods" / "gracl.py.html"
    assert "jaccard_relations" in method.read_text(encoding="utf-8")
    results = tmp_path / "site" / "repository" / "benchmarks" / "results" / "demo.json"
    assert json.loads(results.read_text())["command"]
    assert not (tmp_path / "site" / "tools").exists()


# -- the reference --------------------------------------------------------------------------------


def test_the_reference_has_every_public_name_once(tools):
    reference, _ = tools
    text = "\n".join(reference.pages().values())
    found = re.findall(r"^## (\w+) \{ #gracl\.\w+ \}$", text, flags=re.MULTILINE)
    assert sorted(found) == sorted(gracl.__all__)
    grouped = [name for _, names in reference.GROUPS.values() for name in names.split()]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) <= set(gracl.__all__)
    overview = reference.overview()
    assert all(f"[`{name}`](" in overview for name in gracl.__all__)
    assert "| |" not in overview  # each says what it is


def test_the_reference_says_what_the_docstrings_say(tools):
    reference, _ = tools
    text = " ".join("\n".join(reference.pages().values()).replace("\\", "").split())
    for name in gracl.__all__:
        thing = getattr(gracl, name)
        if callable(thing):
            first = " ".join((thing.__doc__ or "").strip().split("\n\n")[0].split())
            first = re.sub(r":\w+:`", "`", first).replace("<", "&lt;")
            assert first.removesuffix("::") in text, name


def test_every_command_and_its_options_are_listed(tools, capsys):
    """As the command line itself says them."""
    _, commands = tools
    sections = re.split(r"^## gracl ", commands.commands(), flags=re.MULTILINE)[1:]
    assert len(sections) == len(ACTIONS)
    kinds = {" ".join((kind.__doc__ or "").split()) for kind in ACTIONS}
    for text in sections:
        words = text.splitlines()[0].split()
        with pytest.raises(SystemExit):
            main([*words, "--help"])
        said = set(re.findall(r"--[a-z][\w.-]*", capsys.readouterr().out))
        told = {flag for flag in said if "." not in flag}
        listed = set(re.findall(r"^\| `(--[\w-]+)`", text, flags=re.MULTILINE))
        assert listed <= told, words
        # A help text may speak of another command's option; what is missing here is none of these.
        own = {
            f"--{field.name.replace('_', '-')}" for kind in ACTIONS for field in fields_of(kind, text)
        }
        assert own & told <= listed, words
        assert any(kind in " ".join(text.split()) for kind in kinds), words


def fields_of(kind, text):
    """The fields of a command, if it is the one that a section is about."""
    mine = " ".join((kind.__doc__ or "").split()) in " ".join(text.split())
    return dataclasses.fields(kind) if mine else ()


def test_every_setting_is_listed(tools):
    _, commands = tools
    page = commands.settings()
    for section, values in Config().plain().items():
        for key in values:
            assert f"| `{section}.{key}` |" in page


# -- protocols, errors ----------------------------------------------------------------------------


def test_the_page_on_protocols_has_the_rules_of_the_source():
    page = (DOCS / "protocols.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \| (.*) \|$", page, flags=re.MULTILINE)
    known = {**protocols.PROTOCOLS, **protocols.BENCHMARKS}
    assert rows == [(str(protocol), protocol.rule) for protocol in known.values()]


def messages():
    """Every text in the source but docstrings, with \0 for what is filled in."""
    found = []
    for path in SOURCE:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else "\0" for p in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found += [] if id(node) in docstrings else [node.value]
    return found


def test_the_errors_that_are_quoted_are_said():
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^### `(.*)`$", page, flags=re.MULTILINE)
    assert len(quoted) >= 25
    assert len(quoted) == len(set(quoted))
    said = messages()
    for text in quoted:
        parts = [re.escape(part) for part in text.split("...")]
        pattern = re.compile(".*".join(parts), flags=re.DOTALL)
        assert any(pattern.search(message) for message in said), text


def test_the_settings_that_pages_name_exist():
    known = {f"{s}.{k}" for s, values in Config().plain().items() for k in values}
    for page in PAGES:
        for name in re.findall(
            r"--((?:data|model|sampler|augment|train|evaluate)\.[a-z-]+)", page.read_text()
        ):
            assert name.replace("-", "_") in known, (page.name, name)


# -- what pages show runs -------------------------------------------------------------------------

RUN_BY = {
    "associate": "test_associate_command",
    "calibrate": "test_calibration",
    "comparing": "test_comparison",
    "datasets": "test_readme",
    "embed": "test_embedding",
    "export": "test_export",
    "gallery": "test_gallery_command",
    "hub": "test_hub",
    "licences": "test_site",
    "methods": "test_readme",
    "model_card": "test_site",
    "protocols": "test_site",
    "reference": "test_site",
    "report": "test_report",
    "review": "test_review_command",
    "scaling": "test_site",
    "serve": "test_serve",
    "tutorials/names": "test_tutorials",
    "tutorials/research": "test_tutorials",
    "tutorials/ten_minutes": "test_tutorials",
    "tutorials/trackers": "test_tutorials",
    "tutorials/wildlife": "test_tutorials",
}
"""Pages with commands or Python, and the test that runs them."""


def test_every_page_that_shows_code_is_run_by_a_test():
    shows = re.compile(r"^ *```(?:console|python)$", flags=re.MULTILINE)
    pages = [page for page in PAGES if shows.search(page.read_text("utf-8"))]
    found = {page.relative_to(DOCS).with_suffix("").as_posix() for page in pages}
    assert found == {*RUN_BY, "install"}  # which the gate does: a fresh environment, and the demo
    for page, test in RUN_BY.items():
        assert Path(page).name in (ROOT / "tests" / f"{test}.py").read_text("utf-8")


@pytest.mark.parametrize("name", ["licences", "protocols", "reference", "scaling"])
def test_the_python_of_a_page_runs(name, capsys):
    page = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    assert blocks
    for block in blocks:
        exec(block, {})
    expected = {
        "licences": "non-commercial use only",
        "protocols": "cross-camera@1",
        "reference": "write_tracks",
        "scaling": "GiB",
    }
    assert expected[name] in capsys.readouterr().out


def test_the_card_that_is_shown_is_what_its_command_writes(small_run, tmp_path, monkeypatch):
    """Its headings, in order, and its words where they are always the same."""
    from gracl.card import LIMITS, RESPONSIBLE

    page = (DOCS / "model_card.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^````markdown\n(.*?)^````", page, flags=re.DOTALL | re.MULTILINE)
    (command,) = re.findall(r"^\$ gracl (hub save .*)$", page, flags=re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(small_run, "runs/photos")
    with pytest.raises(SystemExit) as ended:
        main(shlex.split(command))
    assert ended.value.code == 0
    written = Path("lynx-model/README.md").read_text(encoding="utf-8")
    headings = re.compile(r"^##? .*$", flags=re.MULTILINE)
    assert headings.findall(outside_fences(shown))[1:] == headings.findall(outside_fences(written))[1:]
    assert LIMITS in shown
    assert RESPONSIBLE in shown


def test_the_pictures_of_the_method_show_what_it_selects(monkeypatch):
    """Proxies against their definition, by loops; and the rows that move."""
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import draw_method

    found = draw_method.scene()
    x, y = found.features, found.labels.tolist()
    assert torch.allclose(x.norm(dim=1), torch.ones(len(x)))
    for cluster in set(y):
        own = [i for i in range(len(y)) if y[i] == cluster]
        others = [i for i in range(len(y)) if y[i] != cluster]
        nearest = {i: max(float(x[i] @ x[j]) for j in others) for i in own}
        alike = {i: sum(float(x[i] @ x[j]) for j in own if j != i) for i in own}
        assert int(found.method.proxies["inter"][cluster]) == min(own, key=nearest.__getitem__)
        assert int(found.method.proxies["intra"][cluster]) == min(own, key=alike.__getitem__)
    still = draw_method.moves(found, "intra", steps=3)
    assert torch.equal(still[0], still[-1])
    way = draw_method.moves(draw_method.scene(update="mean", momentum=0.9), "intra", steps=3)
    assert not torch.equal(way[0], way[-1])
    for name in draw_method.PICTURES:
        assert (DOCS / name).stat().st_size < 200_000
        assert "](" + name + ")" in (DOCS / "how_it_works.md").read_text(encoding="utf-8")


def test_the_software_is_cited_with_its_version():
    import yaml

    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == gracl.__version__
    assert cited["references"][0]["doi"] == "10.1109/TCSVT.2022.3194084"
    assert f"## [{gracl.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
