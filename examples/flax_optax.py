"""A training step in JAX: a Flax model, optax's Adam, and SINCERE in the place of `optax.losses.ntxent`."""

import flax.linen as nn
import jax
import optax
from sklearn.datasets import load_digits

import sincere_spec as ss

images, labels = load_digits(return_X_y=True)
model = nn.Sequential([nn.Dense(64), nn.relu, nn.Dense(16)])
parameters = model.init(jax.random.key(0), images[:1])
optimizer = optax.adam(1e-3)


@jax.jit
def step(parameters, state, x, y):
    """The loss of a batch, and the parameters after a step down its gradient."""

    def loss(parameters):
        # was: optax.losses.ntxent(model.apply(parameters, x), y, 0.1)
        return ss.sincere_loss(model.apply(parameters, x), y, 0.1, reduction="pairs")

    value, gradient = jax.value_and_grad(loss)(parameters)
    updates, state = optimizer.update(gradient, state, parameters)
    return optax.apply_updates(parameters, updates), state, value


state, losses = optimizer.init(parameters), []
for start in range(0, 1280, 128):
    batch = slice(start, start + 128)
    parameters, state, value = step(parameters, state, images[batch] / 16.0, labels[batch])
    losses.append(float(value))
print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
