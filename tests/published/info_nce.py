"""`info_nce` of RElbers/info-nce-pytorch 0.1.4, info_nce/__init__.py, unpaired, averaged."""

import torch
from torch.nn.functional import cosine_similarity


def info_nce(query, positive_key, negative_keys=None, temperature=0.1):
    if negative_keys is None:
        others = cosine_similarity(query[:, None], positive_key[None], dim=2) / temperature
        return (others.logsumexp(1) - others.diagonal()).mean()
    own = cosine_similarity(query, positive_key)[:, None] / temperature
    others = cosine_similarity(query[:, None], negative_keys[None], dim=2) / temperature
    return (torch.cat([own, others], 1).logsumexp(1) - own[:, 0]).mean()
