"""`SupConLoss` of HobbitLong/SupContrast, losses.py at 02f458c: features [n, views, d] that are normalised."""

import torch


class SupConLoss:
    def __init__(self, temperature=0.07, base_temperature=0.07):
        self.temperature, self.base_temperature = temperature, base_temperature

    def __call__(self, features, labels=None):
        n, views, _ = features.shape
        rows = features.transpose(0, 1).flatten(0, 1)
        names = (torch.arange(n) if labels is None else labels).repeat(views)
        itself = torch.eye(n * views, dtype=torch.bool)
        positive = (names[:, None] == names) & ~itself
        logits = rows @ rows.T / self.temperature
        log_softmax = logits - logits.masked_fill(itself, -torch.inf).logsumexp(1, keepdim=True)
        by_row = torch.where(positive, log_softmax, 0).sum(1) / positive.sum(1)
        return -self.temperature / self.base_temperature * by_row.mean()
