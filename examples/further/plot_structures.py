"""
Can a density draw new digits?
==============================

What a density knows can be seen in its samples. Round kernels repeat training images with
noise in every pixel. Kernels that take their shape from the data put the noise where
digits of the same kind differ.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from skhdkde import HighDimKernelDensity, kl_scorer

# %%
# A density needs continuous values, so noise of one grey level is added to the images.

rng = np.random.default_rng(0)
images = rng.permutation(load_digits().data)
images += rng.uniform(size=images.shape)
train, test = images[:1500], images[1500:]

estimates = {
    "default": HighDimKernelDensity(),
    "auto": HighDimKernelDensity(covariance_type="auto", random_state=0),
}
rows = {"real": test[:6]}
for name, kde in estimates.items():
    print(f"{name:8} {kl_scorer(kde.fit(train), test):6.1f} nats per test image")
    rows[name] = kde.sample(6, random_state=0)

# %%
plt.rc("font", size=17)
figure, axes = plt.subplots(3, 6, figsize=(6, 3.3), layout="constrained")
for (name, pictures), line in zip(rows.items(), axes, strict=True):
    line[0].set_ylabel(name)
    for picture, ax in zip(pictures, line, strict=True):
        ax.imshow(picture.reshape(8, 8), cmap="gray_r", vmin=0, vmax=17)
        ax.set(xticks=[], yticks=[])

# %%
# What "auto" compared, best first:

table = estimates["auto"].bandwidth_search_.to_frame()
columns = ["covariance_type", "mixture", "kernel", "bandwidth", "mean_log_density"]
print(table[columns].head(5).to_string(index=False, float_format="{:.1f}".format))

plt.show()
