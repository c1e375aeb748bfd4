r"""
When does a diffusion model begin to copy?
==========================================

A diffusion model turns noise into images, at ever lower noise. One that fits its training
images perfectly returns them. This example shows at which noise level it commits itself:
at :math:`h_G`, where a kernel density estimate enters its extreme regime.
"""

# %%
# A perfect diffusion model
# -------------------------
#
# The density of the training images with noise of standard deviation :math:`\sigma` is a
# kernel density estimate of bandwidth :math:`\sigma`. Its gradient is what a network
# would learn, so no network is needed. Images follow it while the noise decreases.

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from skhdkde import HighDimKernelDensity

rng = np.random.default_rng(0)
X = rng.permutation(load_digits().data)
X = X[:, (X > 0).sum(axis=0) > 10]  # drop pixels that are always empty
train, fresh = X[:1000], X[1000:]

noise = np.append(np.geomspace(60.0, 0.5, 60), 0.0)
x = train.mean(axis=0) + noise[0] * rng.normal(size=(300, train.shape[1]))
behind = []
for sigma, lower in pairwise(noise):
    kde = HighDimKernelDensity(bandwidth=sigma).fit(train)
    behind.append(np.median(kde.diagnose(x).effective_sample_size))
    x = x + (sigma - lower) * sigma * kde.log_density_gradient(x)

# %%
# How many training images pull at a sample
# -----------------------------------------
#
# ``effective_sample_size`` counts them. Far above ``h_g`` it is hundreds. Below, one
# image has taken over, and the sample ends there :cite:p:`biroli2024dynamical`. A model
# that is to make new images must not follow the density of its training images below that
# level.

h_g = np.median(HighDimKernelDensity().fit(train).diagnose(fresh).h_g)
for level in (20.0, 10.0, h_g, 5.0, 3.0):
    i = np.abs(noise[:-1] - level).argmin()
    print(f"noise {noise[i]:4.1f}: {behind[i]:5.1f} images behind a sample")
distances = np.linalg.norm(x[:, None] - train, axis=2).min(axis=1)
print(f"distance of the results to training images: {np.median(distances):.1e}")

plt.rc("font", size=16)
figure, ax = plt.subplots(figsize=(6, 4.4), layout="constrained")
ax.loglog(noise[:-1], behind, color="#0072B2", linewidth=3)
ax.axvline(h_g, color="#D55E00", linestyle="--", linewidth=2)
ax.text(0.9 * h_g, 200, "$h_G$", color="#D55E00", fontsize=22)
ax.set(xlim=(60, 1), xlabel="noise (grey levels), decreasing")
ax.set(ylabel="images behind a sample")
ax.set_xticks([50, 20, 10, 5, 2, 1], ["50", "20", "10", "5", "2", "1"])
ax.set_yticks([1, 10, 100, 1000], ["1", "10", "100", "1000"])
ax.tick_params(which="minor", labelbottom=False, labelleft=False)

plt.show()
