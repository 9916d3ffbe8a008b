"""What a user writes, for type checkers: each line that ends in `# wrong` is an error, and no other is."""

import sincere_spec as ss
from sincere_spec import losses
from sincere_spec.backends import register_backend
from sincere_spec.keras import CLIPLoss as KerasCLIPLoss
from sincere_spec.spec import Fold, Labelled, PairLoss, Pairs, Similarity, Stage, Term
from sincere_spec.torch import DySTreSSLoss, FMICLLoss, SincereLoss, SupConLoss

z = [[1.0, 0.0], [0.0, 1.0]]
y = [0, 0]

# What is returned has the type of the arrays, and a record is a record: neither is Any.
same: list[list[float]] = ss.sincere_loss(z, y, temperature=0.1, reduction="sum", engine="tiled", tile=64)
other: str = ss.sincere_loss(z, y)  # wrong
record: PairLoss = losses.f_micl("js", alpha=2.0)
number: int = losses.sincere(0.1)  # wrong
number = register_backend  # wrong

# Keywords and their words.
ss.sincere_loss(z, y, reduction="avg")  # wrong
ss.sincere_loss(z, y, temprature=0.1)  # wrong
ss.sincere_loss(z)  # wrong
ss.clip_loss(z, z, engine="fast")  # wrong
ss.supcon_loss(z, y, summation="outside")  # wrong
ss.dystress_loss(z, z, schedule="cos")  # wrong
ss.f_micl_loss(z, z, divergence="k1")  # wrong
losses.supcon(0.1, "inside")  # wrong

# Modules and Keras classes.
SincereLoss(0.1, epsilon=0.5, learnable_temperature=True, reduction="pairs", engine="auto", tile=None)
SincereLoss(reduction="avg")  # wrong
SincereLoss(temprature=0.1)  # wrong
SupConLoss(summation="outside")  # wrong
DySTreSSLoss(schedule="cos")  # wrong
FMICLLoss(divergence="k1")  # wrong
KerasCLIPLoss(temperature=0.1, reduction="sum", name="clip", engine="auto")
KerasCLIPLoss(engine="fast")  # wrong
KerasCLIPLoss(reduction="avg")  # wrong

# A record of one's own.
noise = Stage("noise", Fold.LOGSUMEXP, over=Pairs.NEGATIVE)
mine = PairLoss("mine", Labelled(), (noise,), (Term("noise"),), Similarity(), temperature=0.5)
Stage("noise", "logsumexp", over=Pairs.NEGATIVE)  # wrong
Stage("noise", Fold.EXP, over="negative")  # wrong
Term("noise", rows="all")  # wrong
PairLoss("mine", Labelled(), (noise,), (Term("noise"),), "similarity")  # wrong
