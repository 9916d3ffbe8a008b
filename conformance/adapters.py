"""Other packages' losses whose call is more than an expression: those inside a model, or that import torchvision.

No line of a package stands here. Each is called with the arrays of the suite, and returns its own value.
"""

from __future__ import annotations

import importlib.util
import math
from types import SimpleNamespace
from typing import Any

__all__ = [
    "clip_of_open_clip",
    "clip_of_transformers",
    "ntxent_of_lightly",
    "ranking_of_sentence_transformers",
    "siglip_of_open_clip",
    "siglip_of_transformers",
]


def clip_of_transformers(a: Any, b: Any, temperature: float) -> Any:
    """`CLIPModel` with `return_loss=True`, its towers giving these images and texts."""
    import torch

    _find_torchvision()
    from transformers import CLIPModel

    model = SimpleNamespace(
        config=SimpleNamespace(return_dict=True),
        get_image_features=lambda **_: SimpleNamespace(pooler_output=a),
        get_text_features=lambda **_: SimpleNamespace(pooler_output=b),
        logit_scale=torch.tensor(-math.log(temperature), dtype=a.dtype),
    )
    return CLIPModel.forward(model, return_loss=True).loss


def siglip_of_transformers(a: Any, b: Any, temperature: float, bias: float) -> Any:
    """`SiglipModel` with `return_loss=True`, its towers giving these images and texts."""
    import torch

    _find_torchvision()
    from transformers import SiglipModel

    model = SimpleNamespace(
        config=SimpleNamespace(return_dict=True),
        vision_model=lambda **_: SimpleNamespace(pooler_output=a),
        text_model=lambda **_: SimpleNamespace(pooler_output=b),
        logit_scale=torch.tensor(-math.log(temperature), dtype=a.dtype),
        logit_bias=torch.tensor(bias, dtype=a.dtype),
    )
    return SiglipModel.forward(model, return_loss=True).loss


def clip_of_open_clip(a: Any, b: Any, temperature: Any, **options: Any) -> Any:
    """`ClipLoss` of rows that are normalised as open_clip's model normalises them."""
    _find_torchvision()
    from open_clip.loss import ClipLoss
    from torch.nn.functional import normalize

    return ClipLoss(**options)(normalize(a), normalize(b), 1.0 / temperature)


def siglip_of_open_clip(a: Any, b: Any, temperature: Any, bias: Any, **options: Any) -> Any:
    """`SigLipLoss` of rows that are normalised as open_clip's model normalises them."""
    _find_torchvision()
    from open_clip.loss import SigLipLoss
    from torch.nn.functional import normalize

    return SigLipLoss(**options)(normalize(a), normalize(b), 1.0 / temperature, bias)


def ntxent_of_lightly(view_0: Any, view_1: Any, temperature: float, **options: Any) -> Any:
    """`NTXentLoss` without a memory bank."""
    _find_torchvision()
    from lightly.loss import NTXentLoss

    return NTXentLoss(temperature=temperature, **options)(view_0, view_1)


def ranking_of_sentence_transformers(queries: Any, positives: Any, temperature: float, **options: Any) -> Any:
    """`MultipleNegativesRankingLoss` of embeddings that a model has made."""
    _find_torchvision()
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    loss = MultipleNegativesRankingLoss(None, scale=1.0 / temperature, **options)
    return loss.compute_loss_from_embeddings([queries, positives], None)


def _find_torchvision() -> None:
    """Let torchvision be imported where its operators, which no loss needs, are built for another device than torch."""
    import torch

    if importlib.util.find_spec("torchvision") is None:
        return
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            schema = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            _DECLARED.append(torch.library.Library("torchvision", "FRAGMENT"))
            _DECLARED[-1].define(schema)


_DECLARED: list[Any] = []  # what is declared lasts as long as these
