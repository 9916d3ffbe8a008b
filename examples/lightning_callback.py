"""A callback of PyTorch Lightning that logs what a batch can teach: rows that count, top-1, alignment, uniformity, ..."""

import lightning
import torch
from sklearn.datasets import load_digits
from torch import nn

import sincere_spec as ss
from sincere_spec.torch import SincereLoss

LOGGED = ("rows_that_count", "top1", "alignment", "uniformity", "temperature")


class Diagnosis(lightning.Callback):
    """Logs `ss.diagnose` of every so many batches; the module keeps its embeddings in `embedded`."""

    def __init__(self, every=10):
        self.every, self.seen = every, []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        """After a step."""
        if batch_idx % self.every == 0:
            found = ss.diagnose(module.loss.record, module.embedded, batch[1], temperature=module.loss.temperature)
            self.seen.append({name: float(value) for name, value in found.to_dict().items() if name in LOGGED})
            module.log_dict(self.seen[-1])


class Embedding(lightning.LightningModule):
    """A network whose embeddings are trained by SINCERE."""

    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16))
        self.loss = SincereLoss(learnable_temperature=True)
        self.losses = []

    def training_step(self, batch):
        """The loss of a batch."""
        images, labels = batch
        z = self.network(images)
        self.embedded = z.detach()
        loss = self.loss(z, labels)
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self):
        """Of the network and of the loss."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


images, labels = (torch.tensor(x) for x in load_digits(return_X_y=True))
data = torch.utils.data.TensorDataset(images.float() / 16.0, labels)
lightning.seed_everything(0, verbose=False)
model, callback = Embedding(), Diagnosis()
quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
trainer = lightning.Trainer(max_epochs=3, accelerator="cpu", callbacks=[callback], **quiet)
trainer.fit(model, torch.utils.data.DataLoader(data, batch_size=128, shuffle=True, drop_last=True))
for row in (callback.seen[0], callback.seen[-1]):
    print(", ".join(f"{name} {row[name]:.3f}" for name in LOGGED))
print(f"loss {model.losses[0]:.3f} -> {model.losses[-1]:.3f}")
