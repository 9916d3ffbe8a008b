"""The losses that the package builds in, as one table, from which lists and tests follow."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sincere_spec.losses.decoupled import decoupled
from sincere_spec.losses.dystress import dystress, dystress_info_nce
from sincere_spec.losses.f_micl import f_micl
from sincere_spec.losses.hcl import hcl
from sincere_spec.losses.info_nce import clip, info_nce
from sincere_spec.losses.infoloob import infoloob
from sincere_spec.losses.siglip import siglip
from sincere_spec.losses.sincere import sincere
from sincere_spec.losses.supcon import nt_xent, supcon
from sincere_spec.spec.words import PairLoss


class BuiltIn(NamedTuple):
    """A loss of the package: its record, the function of `sincere_spec`, and the class of `.torch` and `.keras`."""

    record: Callable[..., PairLoss]
    function: str
    class_name: str

    @property
    def name(self) -> str:
        """The name in the conformance suite, the benchmark and the tests: that of the record's function."""
        return self.record.__name__


# What follows from it: the lists of the conformance runner, the benchmark, the catalogue and the tests.
TABLE = (
    BuiltIn(sincere, "sincere_loss", "SincereLoss"),
    BuiltIn(supcon, "supcon_loss", "SupConLoss"),
    BuiltIn(decoupled, "decoupled_loss", "DecoupledLoss"),
    BuiltIn(info_nce, "info_nce_loss", "InfoNCELoss"),
    BuiltIn(nt_xent, "nt_xent_loss", "NTXentLoss"),
    BuiltIn(dystress, "dystress_loss", "DySTreSSLoss"),
    BuiltIn(dystress_info_nce, "dystress_info_nce_loss", "DySTreSSInfoNCELoss"),
    BuiltIn(clip, "clip_loss", "CLIPLoss"),
    BuiltIn(siglip, "siglip_loss", "SigLIPLoss"),
    BuiltIn(f_micl, "f_micl_loss", "FMICLLoss"),
    BuiltIn(infoloob, "infoloob_loss", "InfoLOOBLoss"),
    BuiltIn(hcl, "hcl_loss", "HCLLoss"),
)
