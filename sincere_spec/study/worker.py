"""A process that trains in one framework: jobs come as lines of JSON, and events go back as lines of JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from sincere_spec.study.data import DataError, Found, load, transfer
from sincere_spec.study.train import Job, embed, train

TOLD = 16
"""Steps between two events."""


def main() -> None:
    """Read the setting, then jobs, until the input ends."""
    out = sys.stdout
    sys.stdout = sys.stderr  # what a framework prints is no event

    def tell(**event: Any) -> None:
        out.write(json.dumps(event) + "\n")
        out.flush()

    setting = json.loads(sys.stdin.readline())
    framework = setting["framework"]
    if framework == "torch":
        import torch

        torch.set_num_threads(1)
    try:
        images = load(Found(**setting["found"]), setting["images"])
        moved = transfer(images)
    except DataError as error:
        tell(event="refused", why=str(error))
        return
    others = {"test": images.test} | ({} if moved is None else {"transfer": moved[0]})
    tell(event="ready")
    for line in sys.stdin:
        given = json.loads(line)
        job, path = Job(**given["job"]), Path(given["path"])

        def report(done: int, job: Job = job) -> None:
            if done % TOLD == 0 or done == job.steps:
                tell(event="step", done=done)

        trained = train(framework, job, images, report)
        arrays: dict[str, Any] = {f"weights_{name}": x for name, x in trained.weights.items()}
        if job.embed:
            arrays |= embed(job, trained, images, others)
        np.savez(path, **arrays)
        tell(event="done", losses=trained.losses, repulsion=trained.repulsion, seconds=trained.seconds)


if __name__ == "__main__":
    main()
