"""A trainer of pytorch-metric-learning, with a loss of this package as one of its own."""

import torch
from pytorch_metric_learning import losses, trainers
from sklearn.datasets import load_digits
from torch import nn

import sincere_spec as ss


class Sincere(losses.BaseMetricLossFunction):
    """SINCERE for trainers, reducers and wrappers of pytorch-metric-learning, with reference embeddings; it takes no miner."""

    def __init__(self, temperature=0.1, **options):
        super().__init__(**options)
        self.temperature = temperature

    def compute_loss(self, embeddings, labels, indices_tuple, ref_emb, ref_labels):
        """A loss for each row, which the reducer takes the mean of."""
        if indices_tuple is not None:
            raise ValueError("SINCERE compares every row with all others: leave out the miner (indices_tuple)")
        memory = {} if ref_emb is embeddings else {"keys": ref_emb, "key_labels": ref_labels}
        rows = ss.sincere_loss(embeddings, labels, self.temperature, reduction="none", **memory)
        return {"loss": {"losses": rows, "indices": torch.arange(len(rows)), "reduction_type": "element"}}


images, labels = (torch.tensor(x) for x in load_digits(return_X_y=True))
data = torch.utils.data.TensorDataset(images.float() / 16.0, labels)
torch.manual_seed(0)
models = {"trunk": nn.Sequential(nn.Linear(64, 64), nn.ReLU()), "embedder": nn.Linear(64, 16)}
found = []
trainer = trainers.MetricLossOnly(
    models=models,
    optimizers={f"{name}_optimizer": torch.optim.Adam(part.parameters(), lr=1e-3) for name, part in models.items()},
    batch_size=128,
    loss_funcs={"metric_loss": Sincere()},
    dataset=data,
    data_device="cpu",
    dataloader_num_workers=0,
    end_of_iteration_hook=lambda trainer: found.append(trainer.losses["metric_loss"].item()),
)
trainer.train(num_epochs=2)
print(f"loss {found[0]:.3f} -> {found[-1]:.3f}")
