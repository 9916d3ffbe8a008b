"""The losses, each a function that returns a frozen record: mathematics only."""

from sincere_spec.losses.decoupled import decoupled
from sincere_spec.losses.dystress import dystress
from sincere_spec.losses.f_micl import f_micl
from sincere_spec.losses.info_nce import clip, info_nce
from sincere_spec.losses.siglip import siglip
from sincere_spec.losses.sincere import sincere
from sincere_spec.losses.supcon import nt_xent, supcon

__all__ = ["clip", "decoupled", "dystress", "f_micl", "info_nce", "nt_xent", "siglip", "sincere", "supcon"]
