"""Methods that learn from pseudo labels, one file each. None but the upper bound sees the truth."""

from __future__ import annotations

from gracl.methods.cluster_contrast import ClusterContrast
from gracl.methods.gracl import GRACL
from gracl.methods.protocol import Method

METHODS: dict[str, type[Method]] = {
    "gracl": GRACL,
    "cluster-contrast": ClusterContrast,
}
"""A new method is one file and one line here; its settings, where it has some, are one class more."""
