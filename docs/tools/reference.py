"""Pages of the reference: every public name of gracl, from its docstring."""

from __future__ import annotations

import ast

import sources

GROUPS: dict[str, tuple[str, str]] = {
    "data": (
        "Data: what is read, checked and divided",
        (
            "load_dataset from_dataframe from_huggingface read_coco read_megadetector check_dataset "
            "convert_dataset split_by_identity split_by_date split_by_burst draw_queries write_split "
            "draw_people Record Records Dataset Box open_store ImageStore ClusterSampler"
        ),
    ),
    "training": (
        "Training: settings, runs and the loop",
        "Config train fit Epoch Run build_model Embedder GRACL continue_training load_model",
    ),
    "clusters": (
        "Clusters: distances, labels, links, review",
        (
            "extract jaccard_distance cluster OUTLIER sweep_eps Links read_links read_pairs "
            "compare_labels open_study Study Review"
        ),
    ),
    "scores": (
        "Scores: evaluation, comparison, reports",
        (
            "evaluate evaluate_open_set score_features k_reciprocal expand_queries compare Comparison "
            "Contender contenders_of grid paired_difference read_comparison draw_curves "
            "score_identification write_report"
        ),
    ),
    "use": (
        "Use: features, galleries, thresholds, export",
        (
            "embed embed_batches crops Features write_features read_features join_features "
            "require_same_model fingerprint Gallery Where calibrate Calibration write_calibration "
            "read_calibration export_onnx export_program export_weights save_pretrained "
            "from_pretrained push_to_hub"
        ),
    ),
    "tracks": (
        "Tracks: tracklets of several cameras",
        (
            "read_tracks write_tracks Tracks Detection index_frames embed_tracks gather_tracklets "
            "TrackletFeatures associate Association"
        ),
    ),
    "errors": ("Errors", "GraclError"),
}
"""Pages by their file's name: a title, and the public names in the order in which they are met."""


def groups() -> dict[str, tuple[str, list[str]]]:
    """`GROUPS`, and public names that are in none of them."""
    named = {page: (title, names.split()) for page, (title, names) in GROUPS.items()}
    grouped = {name for _, names in named.values() for name in names}
    left_over = [name for name in sources.homes() if name not in grouped]
    return {**named, "more": ("More names", left_over)} if left_over else named


def pages() -> dict[str, str]:
    """Markdown by path: a page a group."""
    return {f"reference/{page}.md": _page(title, names) for page, (title, names) in groups().items()}


def overview() -> str:
    """All public names with what each does, as tables that link to their pages."""
    homes, parts = sources.homes(), []
    for page, (title, names) in groups().items():
        rows = [
            f"| [`{name}`](reference/{page}.md#gracl.{name}) | {_summary(homes[name], name)} |"
            for name in names
        ]
        parts.append(f"## {title}\n\n| name | what it is |\n| --- | --- |\n" + "\n".join(rows))
    return "\n\n".join(parts)


def _page(title: str, names: list[str]) -> str:
    homes = sources.homes()
    return f"# {title}\n\n" + "\n\n".join(_entry(homes[name], name) for name in names) + "\n"


def _summary(module: str, name: str) -> str:
    node = sources.definition(module, name)
    text = sources.value(module, name)[1] if node is None else sources.summary(node)
    return sources.escaped(text) if node is None else text.replace("|", r"\|")


def _entry(module: str, name: str) -> str:
    node = sources.definition(module, name)
    file = "/".join(module.split("."))
    suffix = "/__init__.py" if (sources.SOURCE / file).is_dir() else ".py"
    source = f"[source](../../src/{file}{suffix}){{ .source }}"
    head = f"## {name} {{ #gracl.{name} }}"
    if node is None:
        value, text = sources.value(module, name)
        return f"{head}\n\n```python\n{name} = {value}\n```\n\n{sources.markdown(text)}\n\n{source}"
    parts = [head, f"```python\n{sources.signature(node)}\n```", _said(node), source]
    if isinstance(node, ast.ClassDef):
        parts += _inside(node)
    return "\n\n".join(part for part in parts if part)


def _inside(node: ast.ClassDef) -> list[str]:
    parts = []
    if "dataclass" in sources.decorators(node):
        lines = [_field(*found) for found in sources.fields(node)]
        parts += ["\n".join(lines)] if lines else []
    for method in sources.methods(node):
        anchor = f"### {node.name}.{method.name} {{ #gracl.{node.name}.{method.name} }}"
        called = sources.signature(method)
        if "classmethod" in sources.decorators(method):
            called = f"{node.name}.{called}"
        parts += [anchor, f"```python\n{called}\n```", _said(method)]
    return parts


def _field(name: str, kind: str, default: str, text: str) -> str:
    shown = f" = {default}" if default and "field(" not in default else ""
    return f"* `{name}: {kind}{shown}`" + (f": {sources.escaped(text)}" if text else "")


def _said(node: sources.Definition) -> str:
    return sources.markdown(ast.get_docstring(node) or "")
