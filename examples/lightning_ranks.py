"""Two processes of PyTorch Lightning's ddp strategy: the loss is that of both batches together, its temperature learnt."""

import lightning
import torch
from sklearn.datasets import load_digits
from torch import distributed, nn

from sincere_spec.torch import SincereLoss


class Embedding(lightning.LightningModule):
    """A network whose embeddings are compared over all ranks."""

    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16))
        self.loss = SincereLoss(learnable_temperature=True)
        self.losses = []

    def setup(self, stage):
        """The process group is there now; it is None where one process trains, and the loss is its own."""
        self.loss.across = distributed.group.WORLD

    def training_step(self, batch):
        """The loss of the whole batch, the same on every rank."""
        images, labels = batch
        loss = self.loss(self.network(images), labels)
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self):
        """Of the network and of the loss."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


images, labels = (torch.tensor(x) for x in load_digits(return_X_y=True))
data = torch.utils.data.TensorDataset(images.float() / 16.0, labels)
lightning.seed_everything(0, verbose=False)
model = Embedding()
quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
trainer = lightning.Trainer(max_epochs=2, accelerator="cpu", strategy="ddp", devices=2, **quiet)
trainer.fit(model, torch.utils.data.DataLoader(data, batch_size=64, drop_last=True))
if trainer.is_global_zero:
    print(f"loss {model.losses[0]:.3f} -> {model.losses[-1]:.3f}")
