"""`ClipLoss` and `SigLipLoss` of mlfoundations/open_clip 3.3.0, src/open_clip/loss.py, in one process."""

import torch


class ClipLoss:
    def __call__(self, image_features, text_features, logit_scale):
        logits = logit_scale * image_features @ text_features.T
        both = logits.logsumexp(1) + logits.logsumexp(0) - 2 * logits.diagonal()
        return both.mean() / 2


class SigLipLoss:
    def __call__(self, image_features, text_features, logit_scale, logit_bias):
        logits = logit_scale * image_features @ text_features.T + logit_bias
        sign = 2 * torch.eye(len(logits)) - 1
        return torch.log1p(torch.exp(-sign * logits)).sum() / len(logits)
