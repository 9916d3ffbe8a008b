"""Accelerate, `accelerate launch --cpu --num_processes 2 accelerate_ranks.py`: one loss of the rows of all processes."""

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch import distributed, nn

from sincere_spec.torch import SincereLoss

accelerator = Accelerator(cpu=True)  # starts the process group, which is None where there is one process
images, labels = (torch.tensor(x) for x in load_digits(return_X_y=True))
data = torch.utils.data.TensorDataset(images.float() / 16.0, labels)
torch.manual_seed(0)
network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16))
loss = SincereLoss(learnable_temperature=True, across=distributed.group.WORLD)
optimizer = torch.optim.Adam([*network.parameters(), *loss.parameters()], lr=1e-3)
loader = torch.utils.data.DataLoader(data, batch_size=64, drop_last=True)
network, optimizer, loader = accelerator.prepare(network, optimizer, loader)

losses = []
for _ in range(2):
    for images, labels in loader:
        optimizer.zero_grad()
        value = loss(network(images), labels)  # the same on every rank; its own parameter needs no DDP
        accelerator.backward(value)
        optimizer.step()
        losses.append(value.item())
accelerator.print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
