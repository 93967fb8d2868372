"""Methods that learn from pseudo labels, one file each. None but the upper bound sees the truth."""

from __future__ import annotations

from gracl.methods.cap import CAP
from gracl.methods.cluster_contrast import ClusterContrast
from gracl.methods.dcmip import DCMIP
from gracl.methods.gracl import GRACL
from gracl.methods.hhcl import HHCL
from gracl.methods.ice import ICE
from gracl.methods.pplr import PPLR
from gracl.methods.protocol import Method
from gracl.methods.spcl import SpCL
from gracl.methods.supervised import Supervised

METHODS: dict[str, type[Method]] = {
    "gracl": GRACL,
    "cluster-contrast": ClusterContrast,
    "hhcl": HHCL,
    "spcl": SpCL,
    "dcmip": DCMIP,
    "ice": ICE,
    "cap": CAP,
    "pplr": PPLR,
    "supervised": Supervised,
}
"""A new method is one file and one line here; its settings, where it has some, are one class more."""
