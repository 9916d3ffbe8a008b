"""Keras's `fit`, on the backend that `KERAS_BACKEND` names."""

import keras
from sklearn.datasets import load_digits

from sincere_spec.keras import SincereLoss

images, labels = load_digits(return_X_y=True)
keras.utils.set_random_seed(0)
model = keras.Sequential([keras.layers.Dense(64, activation="relu"), keras.layers.Dense(16)])
model.compile(keras.optimizers.Adam(1e-3), loss=SincereLoss(temperature=0.1))
losses = model.fit(images / 16.0, labels, batch_size=128, epochs=3, verbose=0).history["loss"]
print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
