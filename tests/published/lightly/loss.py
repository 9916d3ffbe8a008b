"""`NTXentLoss` of lightly-ai/lightly, lightly/loss/ntx_ent_loss.py at 00283d7, without a memory bank, in one process."""

import torch
from torch.nn.functional import cosine_similarity


class NTXentLoss:
    def __init__(self, temperature=0.5):
        self.temperature = temperature

    def __call__(self, out0, out1):
        rows = torch.cat([out0, out1])
        logits = cosine_similarity(rows[:, None], rows[None], dim=2) / self.temperature
        other = torch.arange(len(rows)).roll(len(out0))
        denominator = logits.masked_fill(torch.eye(len(rows), dtype=torch.bool), -torch.inf).logsumexp(1)
        return (denominator - logits[torch.arange(len(rows)), other]).mean()
