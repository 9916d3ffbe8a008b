"""A callback of Keras that logs what embeddings can teach: rows that count, top-1, alignment, uniformity, temperature."""

import keras
from sklearn.datasets import load_digits

import sincere_spec as ss
from sincere_spec.keras import SincereLoss

LOGGED = ("rows_that_count", "top1", "alignment", "uniformity", "temperature")


class Diagnosis(keras.callbacks.Callback):
    """Adds `ss.diagnose` of some rows to the logs of each epoch, for `history` and for callbacks that come later."""

    def __init__(self, rows, labels):
        super().__init__()
        self.rows, self.labels = rows, labels

    def on_epoch_end(self, epoch, logs=None):
        """After an epoch."""
        z = keras.ops.convert_to_numpy(self.model(self.rows))
        found = ss.diagnose(self.model.loss.record, z, self.labels).to_dict()
        logs.update({name: float(found[name]) for name in LOGGED})


images, labels = load_digits(return_X_y=True)
keras.utils.set_random_seed(0)
model = keras.Sequential([keras.layers.Dense(64, activation="relu"), keras.layers.Dense(16)])
model.compile(keras.optimizers.Adam(1e-3), loss=SincereLoss(temperature=0.1))
diagnosis = Diagnosis(images[:256] / 16.0, labels[:256])
history = model.fit(images / 16.0, labels, batch_size=128, epochs=3, verbose=0, callbacks=[diagnosis]).history
for epoch in (0, -1):
    print(", ".join(f"{name} {history[name][epoch]:.3f}" for name in LOGGED))
print(f"loss {history['loss'][0]:.3f} -> {history['loss'][-1]:.3f}")
