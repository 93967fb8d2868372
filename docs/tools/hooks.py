"""What mkdocs is told beyond its settings: pages that are made, and links that leave docs/.

The pages of docs/ are read in two places: in the repository, where `../src/gracl/methods/gracl.py` is
a file beside them, and in the site, where it is not. So what they link to outside docs/ goes into the
site too: Markdown as a page, source as a page that shows it, everything else as a file. A link to
something that is not in the repository is an error in either place.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

import commands
import reference

ROOT = Path(__file__).parents[2]
PAGES = {"README.md": "readme.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Pages that lie outside docs/, and what they are called in the site."""
SHOWN = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".cff": "yaml", "": "text"}
"""Files that are shown as a page, by their ending."""
MARK = "<!-- names -->"
"""Where the reference's overview goes."""
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
FENCE = re.compile(r"(^```.*?^```$|^````.*?^````$)", flags=re.DOTALL | re.MULTILINE)

_origins: dict[str, str] = {}
"""Where in the repository each page's links start from, by its path in the site."""


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that are made, and what is linked to outside docs/."""
    _origins.clear()
    _origins.update(
        {file.src_uri: f"docs/{file.src_uri}" for file in files if file.is_documentation_page()}
    )
    made = {target: (ROOT / source).read_text("utf-8") for source, target in PAGES.items()}
    _origins.update({target: source for source, target in PAGES.items()})
    made |= {**reference.pages(), **commands.pages()}
    for page, text in made.items():
        _origins.setdefault(page, f"docs/{page}")
        files.append(_made(config, page, text, InclusionLevel.NOT_IN_NAV))
    texts = {page: _text(files, page) for page in _origins}
    for path in sorted({path for page, text in texts.items() for path in _outside(text, page)}):
        files.append(_copied(config, path))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fills in the overview, and lets links point to where their targets lie in the site."""
    uri = page.file.src_uri
    if uri == "reference.md":
        markdown = markdown.replace(MARK, reference.overview())
    if uri not in _origins:
        return markdown

    def moved(found: re.Match[str]) -> str:
        target = _resolve(found[2], uri)
        if target is None:
            return found[0]
        place = posixpath.relpath(_in_site(target), posixpath.dirname(uri) or ".")
        return f"{found[1]}{place}{found[3] or ''}{found[4]}"

    parts = FENCE.split(markdown)
    return "".join(part if part.startswith("```") else LINK.sub(moved, part) for part in parts)


def _made(config: Any, uri: str, text: str | bytes, inclusion: InclusionLevel) -> File:
    file = File.generated(config, uri, content=text)
    file.inclusion = inclusion
    return file


def _text(files: Files, page: str) -> str:
    file = files.get_file_from_path(page)
    assert file is not None
    return file.content_string


def _outside(text: str, page: str) -> Iterator[str]:
    """Files of the repository outside docs/ that a page links to, and that are there."""
    for part in FENCE.split(text):
        for found in () if part.startswith("```") else LINK.finditer(part):
            target = _resolve(found[2], page)
            if (
                target
                and not target.startswith("docs/")
                and target not in PAGES
                and (ROOT / target).is_file()
            ):
                yield target


def _resolve(link: str, page: str) -> str | None:
    """The file of the repository that a link names; None where it names something else."""
    if re.match(r"[a-z]+:|/", link):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(_origins[page]), link))


def _in_site(path: str) -> str:
    """Where a file of the repository lies in the site."""
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"repository/{path}.md" if Path(path).suffix in SHOWN else f"repository/{path}"


def _copied(config: Any, path: str) -> File:
    file = ROOT / path
    if file.suffix not in SHOWN:
        return _made(config, _in_site(path), file.read_bytes(), InclusionLevel.INCLUDED)
    text = file.read_text(encoding="utf-8").rstrip()
    page = (
        f"---\nsearch: {{exclude: true}}\nhide: [toc]\n---\n# {file.name}\n\n"
        f"`{path}` of the repository.\n\n"
        f"`````{SHOWN[file.suffix]}\n{text}\n`````\n"
    )
    return _made(config, _in_site(path), page, InclusionLevel.NOT_IN_NAV)
