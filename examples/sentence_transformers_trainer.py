"""The trainer of sentence-transformers, with a loss of this package. The sentences name the pixels that are lit in a digit."""

import tempfile

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.models import BoW, Dense
from sklearn.datasets import load_digits

import sincere_spec as ss


class Sincere(torch.nn.Module):
    """SINCERE as the trainer calls its losses: with the features of each column of sentences, and the labels."""

    def __init__(self, model, temperature=0.1):
        super().__init__()
        self.model, self.temperature = model, temperature

    def forward(self, sentence_features, labels):
        """The loss of a batch."""
        (features,) = sentence_features
        return ss.sincere_loss(self.model(features)["sentence_embedding"], labels, self.temperature)


images, labels = load_digits(return_X_y=True)
sentences = [" ".join(f"pixel{i}" for i in image.nonzero()[0]) for image in images]
torch.manual_seed(0)
model = SentenceTransformer(modules=[BoW([f"pixel{i}" for i in range(64)]), Dense(64, 16)], device="cpu")
with tempfile.TemporaryDirectory() as folder:
    arguments = SentenceTransformerTrainingArguments(
        folder,
        num_train_epochs=2,
        per_device_train_batch_size=128,
        learning_rate=1e-2,
        logging_steps=1,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        dataloader_drop_last=True,
    )
    data = Dataset.from_dict({"sentence": sentences, "label": labels.tolist()})
    trainer = SentenceTransformerTrainer(model, arguments, train_dataset=data, loss=Sincere(model))
    trainer.train()
losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
