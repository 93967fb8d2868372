"""Whose weights a training began from, and under which licence these are.

The licences of timm's weights are those that timm itself notes (`pretrained_cfg.license`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from gracl.models.hub import HUB

LIBERAL = {"apache-2.0", "mit", "bsd-3-clause", "bsd-2-clause", "cc-by-4.0"}
"""Licences that ask for little more than to be named. All others are pointed out."""

_NAMED = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0
bigcode-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda
cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0
cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0
cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0
etalab-2.0 eupl-1.1 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc lppl-1.3c ms-pl mpl-2.0
odc-by odbl openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license
llama2 gemma unknown other
"""
IDENTIFIERS = frozenset(_NAMED.split())
"""Licences as the Hugging Face hub calls them. Source: its documentation, "Licenses"."""


@dataclass(frozen=True)
class Origin:
    """Where the weights come from that a training began with."""

    name: str
    """What they are, as a part of a sentence."""
    licence: str | None
    """Their licence; None is not known."""
    repository: str | None = None
    """Where they lie on the Hugging Face hub, if they do."""
    begins_at_nothing: bool = False
    """Random weights: they are nobody's."""

    @property
    def caution(self) -> str:
        """What whoever uses a model that began with them must know; nothing where all is plain."""
        if self.begins_at_nothing or self.licence in LIBERAL:
            return ""
        if self.licence is None:
            return "The licence of the weights that training began from is not known."
        if re.search(r"(^|-)nc(-|$)|noncommercial", self.licence):
            return (
                f"The weights that training began from are under {self.licence}: **non-commercial use "
                "only**."
            )
        return (
            f"The weights that training began from have terms of their own: {self.licence}. Read them."
        )


def origin_of(backbone: str, weights: str | Path) -> Origin:
    """What is known of the weights that `model.weights` names.

    Args:
        backbone: timm's name, with a tag or without.
        weights: as in `build_embedder`. Of a file only its name is kept.

    >>> origin_of("resnet50.fb_swsl_ig1b_ft_in1k", "pretrained").caution[-29:].strip()
    '**non-commercial use only**.'
    >>> origin_of("resnet50", "/home/ada/best.pth").name
    'a file, `best.pth`'
    """
    weights = public_name(weights)
    if weights == "none":
        return Origin("none: random weights", None, begins_at_nothing=True)
    if weights == "pretrained":
        return _of_timm(backbone)
    if weights.startswith(HUB):
        repository = weights.removeprefix(HUB).split("@")[0]
        owner, _, name = repository.partition("/")
        licence = _of_timm(name).licence if owner == "timm" else None
        return Origin(f"`{repository}` of the Hugging Face hub", licence, repository)
    return Origin(f"a file, `{weights}`", None)


def public_name(weights: str | Path) -> str:
    r"""`model.weights` without the folders of the user's machine.

    >>> [public_name(w) for w in ("none", "hf-hub:timm/resnet18", "a/b.pth", r"C:\Ada\b.pth")]
    ['none', 'hf-hub:timm/resnet18', 'b.pth', 'b.pth']
    """
    weights = str(weights)
    if weights.startswith(HUB):
        return weights
    return re.split(r"[\\/]", weights.rstrip("\\/"))[-1]


def _of_timm(name: str) -> Origin:
    import timm

    try:
        cfg = timm.get_pretrained_cfg(name)
    except RuntimeError:  # a tag that this version of timm does not know
        cfg = None
    if cfg is None:
        return Origin(f"timm's `{name}`", None)
    architecture = name.split(".")[0]
    whole = f"{architecture}.{cfg.tag}" if cfg.tag else name
    licence = cfg.license if cfg.license not in (None, "", "unknown") else None
    return Origin(f"timm's `{whole}`", licence, cfg.hf_hub_id or None)
