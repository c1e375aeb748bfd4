"""
How do I estimate a density of directions?
==========================================

Directions are points on a circle or a sphere. A density of their angles breaks where the
angles start anew, at north. With ``support="sphere"`` rows are unit vectors, and the
density is one on the sphere.
"""

# %%
# On a circle
# -----------
#
# Wind on 300 days: mostly from the south-west, less often from the north.

import matplotlib.pyplot as plt
import numpy as np
from scipy.spatial.transform import Rotation
from scipy.stats import vonmises, vonmises_fisher

from skhdkde import HighDimKernelDensity

rng = np.random.default_rng(0)
southwest = vonmises(4, loc=np.radians(225)).rvs(220, random_state=rng)
north = vonmises(12).rvs(80, random_state=rng)
wind = np.mod(np.concatenate([southwest, north]), 2 * np.pi)


def unit_vectors(angles):
    """Points on the circle."""
    return np.column_stack([np.cos(angles), np.sin(angles)])


on_circle = HighDimKernelDensity(support="sphere").fit(unit_vectors(wind))
of_angles = HighDimKernelDensity(bandwidth=on_circle.bandwidth_).fit(wind[:, None])
for degrees in (1, 359):
    x = np.radians([degrees])
    circle = np.exp(on_circle.score_samples(unit_vectors(x))[0])
    angle = np.exp(of_angles.score_samples(x[:, None])[0])
    print(f"{degrees:3d} degrees: on the circle {circle:.3f}, of angles {angle:.3f}")

# %%
# The density of angles loses half of what is at north: it does not know that 1 and 359
# degrees are neighbours.
#
# On a sphere
# -----------
#
# 400 directions: half in a spot, half along a ring, like those of something that
# precesses about an axis. ``covariance_type="auto"`` lets kernels take the shape of the
# ring.


tilt = Rotation.from_euler("y", 70, degrees=True)


def draw(n):
    """Directions from a ring and a spot, as unit vectors."""
    turn, height = rng.uniform(0, 2 * np.pi, n), rng.normal(0.6, 0.02, n)
    ring = np.sqrt(1 - height**2)[:, None] * unit_vectors(turn)
    spot = vonmises_fisher([-0.6, 0.8, 0.0], 30).rvs(n, random_state=rng)
    return np.vstack([tilt.apply(np.column_stack([ring, height])), spot])


train, fresh = draw(200), draw(2000)
round_kernels = HighDimKernelDensity(support="sphere").fit(train)
kde = HighDimKernelDensity(support="sphere", covariance_type="auto", random_state=0)
kde.fit(train)
gain = np.mean(kde.score_samples(fresh) - round_kernels.score_samples(fresh))
print(f"gain over round kernels: {gain:.2f} nats per direction")

# %%
# Mollweide's map of the sphere, which keeps areas. Darker is denser; points are the
# training directions.

longitude, latitude = np.meshgrid(
    np.linspace(-np.pi, np.pi, 241), np.linspace(-np.pi / 2, np.pi / 2, 121)
)
height = np.sin(latitude).ravel()
flat = np.sqrt(1 - height**2)[:, None] * unit_vectors(longitude.ravel())
density = np.exp(kde.score_samples(np.column_stack([flat, height])))

figure = plt.figure(figsize=(6, 3.2), layout="constrained")
ax = figure.add_subplot(projection="mollweide")
ax.pcolormesh(longitude, latitude, density.reshape(longitude.shape), cmap="Blues")
east, north = np.arctan2(train[:, 1], train[:, 0]), np.arcsin(train[:, 2])
ax.plot(east, north, ".", color="#D55E00", markersize=3)
ax.set(xticks=[], yticks=[])

plt.show()
