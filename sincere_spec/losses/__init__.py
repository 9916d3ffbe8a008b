"""The losses, each a function that returns a frozen record: mathematics only. `table` has all that the package builds in."""

from sincere_spec.losses import table as table
from sincere_spec.losses.decoupled import decoupled
from sincere_spec.losses.dystress import dystress, dystress_info_nce
from sincere_spec.losses.f_micl import f_micl
from sincere_spec.losses.hcl import hcl
from sincere_spec.losses.info_nce import clip, info_nce
from sincere_spec.losses.infoloob import infoloob
from sincere_spec.losses.siglip import siglip
from sincere_spec.losses.sincere import sincere
from sincere_spec.losses.supcon import nt_xent, supcon

__all__ = [
    "clip",
    "decoupled",
    "dystress",
    "dystress_info_nce",
    "f_micl",
    "hcl",
    "info_nce",
    "infoloob",
    "nt_xent",
    "siglip",
    "sincere",
    "supcon",
]
