"""
Directions: densities on the circle and the sphere
==================================================

Directions, such as those of the wind or of magnetisation in rocks, are points on a circle
or a sphere. There is no end and no special place: a density must not depend on where
north is, nor fall off where angles start anew. With ``support="sphere"`` it does not.
This example shows it where it can be seen.
"""

# %%
# A circle
# --------
#
# Wind directions of 300 days: mostly from the south-west, less often from the north. As
# unit vectors they have no jump at north. A density of the angles has: it knows
# nothing of a wind from 359 degrees when it is asked of 1 degree.

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import vonmises, vonmises_fisher

from skhdkde import HighDimKernelDensity

rng = np.random.default_rng(0)


def on_circle(angles):
    """Unit vectors of angles."""
    return np.column_stack([np.cos(angles), np.sin(angles)])


prevailing, northerly = vonmises(4, loc=np.radians(225)), vonmises(12, loc=0.0)
wind = np.concatenate(
    [prevailing.rvs(220, random_state=rng), northerly.rvs(80, random_state=rng)]
)
angles = np.linspace(-np.pi, np.pi, 721)
true_wind = (220 * prevailing.pdf(angles) + 80 * northerly.pdf(angles)) / 300

circle = HighDimKernelDensity(support="sphere").fit(on_circle(wind))
of_wind = np.exp(circle.score_samples(on_circle(angles)))
# as wide: a short chord is an angle
line = HighDimKernelDensity(bandwidth=circle.bandwidth_)
line.fit(np.mod(wind, 2 * np.pi)[:, None])
of_angles = np.exp(line.score_samples(np.mod(angles, 2 * np.pi)[:, None]))

print(f"concentration of the kernel: {circle.bandwidth_**-2:.0f}")
print(f"total over the circle: {2 * np.pi * of_wind[1:].mean():.6f}")
print(f"at north: true {true_wind[360]:.3f}, on the circle {of_wind[360]:.3f}, ", end="")
print(f"of angles {of_angles[360]:.3f} per radian")

# %%
# A sphere
# --------
#
# 400 directions: half of them in a spot, half along a small circle, as those of something
# that precesses about an axis. A round kernel of one width is too wide across the circle
# and too narrow along it. "auto" takes the shape of kernels from the points around,
# in the space around the sphere, and projects them to it.

AXIS = np.array([0.9, -0.3, 0.2]) / np.sqrt(0.94)
SPOT = vonmises_fisher(np.array([-0.4, 0.9, -0.2]) / np.sqrt(1.01), 30)
TO_AXIS, WIDTH = 0.6, 0.03  # cosine to the axis and its spread


def draw(n, rng):
    """Directions from the spot and the small circle."""
    ring = n // 2
    side, up = np.linalg.qr(np.column_stack([AXIS, np.eye(3)[:, :2]]))[0].T[1:]
    cosine, turn = rng.normal(TO_AXIS, WIDTH, ring), rng.uniform(0, 2 * np.pi, ring)
    across = np.outer(np.cos(turn), side) + np.outer(np.sin(turn), up)
    circle = cosine[:, None] * AXIS + np.sqrt(1 - cosine**2)[:, None] * across
    return np.vstack([circle, SPOT.rvs(n - ring, random_state=rng)])


def truth(X):
    """Log density that the directions come from."""
    off = (X @ AXIS - TO_AXIS) / WIDTH
    ring = np.exp(-0.5 * off**2) / (WIDTH * np.sqrt(2 * np.pi) * 2 * np.pi)
    return np.log(0.5 * ring + 0.5 * SPOT.pdf(X))


train, fresh = draw(400, rng), draw(4000, rng)
estimates = {
    "von Mises-Fisher kernels": HighDimKernelDensity(support="sphere"),
    'covariance_type="auto"': HighDimKernelDensity(
        support="sphere", covariance_type="auto", random_state=0
    ),
}
divergences = {}
for name, kde in estimates.items():
    kde.fit(train)
    divergences[name] = np.mean(truth(fresh) - kde.score_samples(fresh))
    print(f"{name}: divergence from the truth {divergences[name]:.3f} nats")
chosen = estimates['covariance_type="auto"'].bandwidth_search_.to_frame().iloc[0]
print(f"chosen: {chosen.covariance_type}, {chosen.mixture}, {chosen.kernel}")

# %%
# What it looks like
# ------------------
#
# The circle is unrolled in polar axes, with the density as the distance from the rim. The
# sphere is drawn by Mollweide's projection, which keeps areas: what is darker is denser.

longitude, latitude = np.meshgrid(
    np.linspace(-np.pi, np.pi, 361), np.linspace(-np.pi / 2, np.pi / 2, 181)
)
grid = np.stack(
    [
        np.cos(latitude) * np.cos(longitude),
        np.cos(latitude) * np.sin(longitude),
        np.sin(latitude),
    ],
    axis=-1,
).reshape(-1, 3)
areas = np.cos(latitude).ravel() * np.radians(1) ** 2

VERMILION, BLUE = "#D55E00", "#0072B2"  # safe for the colour-blind

figure = plt.figure(figsize=(10, 8.2), layout="constrained")
above, below = figure.subfigures(2, 1, height_ratios=[1.0, 1.35])
rose, flat = above.add_subplot(1, 2, 1, projection="polar"), above.add_subplot(1, 2, 2)
rose.set(theta_zero_location="N", theta_direction=-1, rticks=[], ylim=(0, 1.75))
rose.set_xticks(np.radians([0, 90, 180, 270]), ["N", "E", "S", "W"])
rose.plot(angles, np.ones_like(angles), color="0.7", linewidth=0.8)
rose.fill_between(angles, 1, 1 + true_wind, color="0.85", label="truth")
rose.plot(angles, 1 + of_wind, color=BLUE, label='support="sphere"')
rose.plot(wind, np.full_like(wind, 0.96), "|", color="0.5", markersize=4)
rose.set_title("On the circle ...")

degrees = np.degrees(angles)
flat.fill_between(degrees, true_wind, color="0.85", label="truth")
flat.plot(degrees, of_wind, color=BLUE, label='support="sphere"')
flat.plot(degrees, of_angles, color=VERMILION, label="density of the angles")
flat.set_xticks(range(-180, 181, 90))
flat.set(xlabel="angle (degrees from north)", ylabel="density (per radian)")
flat.set_title("... there is no jump at north")
flat.legend(frameon=False)

maps = below.subplots(2, 2, subplot_kw={"projection": "mollweide"})
drawn = estimates['covariance_type="auto"'].sample(400, random_state=0)
densities = {"truth": truth(grid)}
densities |= {name: kde.score_samples(grid) for name, kde in estimates.items()}
for panel, (name, log_density) in zip(maps.flat, densities.items(), strict=False):
    print(f"{name}: total over the sphere {np.sum(areas * np.exp(log_density)):.4f}")
    shown = np.exp(log_density).reshape(longitude.shape)
    panel.pcolormesh(longitude, latitude, shown, cmap="Blues", vmax=1.2, rasterized=True)
    far = f", {divergences[name]:.2f} nats away" if name in divergences else ""
    panel.set_title(name + far)
for points, color in [(train, "black"), (drawn, VERMILION)]:
    maps[1, 1].plot(
        np.arctan2(points[:, 1], points[:, 0]),
        np.arcsin(points[:, 2]),
        ".",
        color=color,
        markersize=3,
    )
maps[1, 1].set_title("400 training points (black) and 400 samples")
for panel in maps.flat:
    panel.set(xticks=[], yticks=[])

# sphinx_gallery_start_ignore
import sys

if "sphinx_gallery" not in sys.modules:
    figure.savefig("plot_sphere.png", dpi=110)
# sphinx_gallery_end_ignore
plt.show()
