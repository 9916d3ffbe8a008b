"""`simclr_loss_func` of vturrisi/solo-learn, solo/losses/simclr.py at 00ce246, in one process."""

import torch
from torch.nn.functional import cosine_similarity


def simclr_loss_func(z, indexes, temperature=0.1):
    logits = cosine_similarity(z[:, None], z[None], dim=2) / temperature
    itself = torch.eye(len(z), dtype=torch.bool)
    positive = (indexes[:, None] == indexes) & ~itself
    denominator = logits.masked_fill(itself, -torch.inf).logsumexp(1)
    return (denominator - logits.masked_fill(~positive, -torch.inf).logsumexp(1)).mean()
