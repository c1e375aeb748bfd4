r"""
Which training images does a generator copy?
============================================

A generative model should make new images, not repeat those it was trained on. Copies are
hard to see: a noisy copy may be as far from its source as two different images are from
each other. The *effective sample size* sees many of them. It says how many training
images stand behind a sample, and :math:`h_G` from which noise level on it will be one.
"""

# %%
# A diffusion model that has learned too well
# -------------------------------------------
#
# Diffusion models turn noise into images by following the gradient of a log density,
# that of the data with noise of standard deviation :math:`\sigma`, while :math:`\sigma`
# decreases: :math:`dx = -\sigma \nabla \log p_\sigma(x) d\sigma`. A network that fits
# its training images perfectly has learned the density of *these* images with noise,
# which is a Gaussian kernel density estimate of bandwidth :math:`\sigma`. So here is
# the limit of a perfect fit, without a network.

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors

from skhdkde import HighDimKernelDensity

images = load_digits().data
inked = (images > 0).sum(axis=0) > 10  # the others, at the rim, are nearly always empty
rng = np.random.default_rng(0)
train, held_out = np.split(rng.permutation(images)[:, inked], [1000])

kde = HighDimKernelDensity().fit(train)
h_g = np.median(kde.diagnose(held_out).h_g)
print(f'bandwidth "kl" {kde.bandwidth_:.2f}, h_G of fresh images {h_g:.2f} pixel values')

noise = np.append(np.geomspace(60.0, 0.5, 80), 0.0)
x = train.mean(axis=0) + noise[0] * rng.normal(size=(300, train.shape[1]))
n_behind = []
for sigma, lower in pairwise(noise):
    noisy = HighDimKernelDensity(bandwidth=sigma).fit(train)
    n_behind.append(noisy.diagnose(x).effective_sample_size)
    x = x + (sigma - lower) * sigma * noisy.log_density_gradient(x)
n_behind = np.quantile(n_behind, [0.1, 0.5, 0.9], axis=1)

print("noise  images behind a sample: median, 80 % of samples")
for level in (20.0, 10.0, h_g, 5.0, 3.0):
    i = np.abs(noise[:-1] - level).argmin()
    low, median, high = n_behind[:, i]
    print(f"{noise[i]:5.1f} {median:15.1f}       {low:5.1f} to {high:.1f}")

# %%
# While the noise is far above :math:`h_G` typically more than a hundred images attract a
# sample, and it may become anything. Around :math:`h_G` one of them takes over, and the
# way from there leads to it: the collapse of :cite:t:`biroli2024dynamical`. What comes
# out are training images. A model that is to make new ones must not follow their
# density below that level.
#
# Audit of four generators
# ------------------------
#
# Samples only are needed, whatever made them: the diffusion above; the kernel density
# estimate at its best bandwidth; a Gaussian mixture; and a mixture of far too many
# components.
#
# At what effective sample size is a sample a copy? Fresh images tell, which no
# generator has seen. At the best bandwidth even these rest on one training image each:
# there it says *which*, not *whether*. At the bandwidth ``h_g`` they rest on several. A
# sample is suspect if a single training image has a larger share in it than in 99 % of
# the fresh images. Beside it the usual test, for samples nearer to a training image
# than 99 % of the fresh images are.


def mixture(n_components):
    model = GaussianMixture(
        n_components, covariance_type="diag", reg_covar=0.1, random_state=0
    )
    return model.fit(train).sample(300)[0]


samples = {
    "diffusion": x,
    "kernel density": kde.sample(300, random_state=0),
    "mixture of 400": mixture(400),
    "mixture of 40": mixture(40),
}
auditor = HighDimKernelDensity(bandwidth=h_g).fit(train)
neighbors = NearestNeighbors(n_neighbors=1).fit(train)


def audit(queries):
    diagnosis = auditor.diagnose(queries)
    return diagnosis, neighbors.kneighbors(queries)[0][:, 0]


fresh, fresh_distance = audit(held_out)
suspect_share = np.quantile(fresh.max_weight, 0.99)
suspect_distance = np.quantile(fresh_distance, 0.01)
print(f"{'':16} images behind it  distance  suspects by share  by distance")
for name, queries in {"fresh images": held_out, **samples}.items():
    diagnosis, distance = audit(queries)
    print(
        f"{name:16} {np.median(diagnosis.effective_sample_size):16.1f}"
        f" {np.median(distance):9.1f}"
        f" {np.mean(diagnosis.max_weight > suspect_share):18.0%}"
        f" {np.mean(distance < suspect_distance):12.0%}"
    )

# %%
# Samples of the kernel density estimate are training images with noise. Their distances
# are those of fresh images, so that the usual test passes nearly all of them; the
# shares give about a third of them away. Exact copies are found by distance; by
# shares only those that do not resemble many other training images. The two tests see
# different things. A mixture of 40 components passes both.
#
# Figure
# ------
#
# Left, the way of the diffusion from noise to images. Right, for three of the
# generators the samples in which one training image has the largest share, and below
# each that image.

BLUE, VERMILION = "#0072B2", "#D55E00"  # safe for the colour-blind

figure = plt.figure(figsize=(10, 5), layout="constrained")
left, right = figure.subfigures(1, 2)
axes = left.subplots()
axes.fill_between(
    noise[:-1],
    n_behind[0],
    n_behind[2],
    color=BLUE,
    alpha=0.25,
    linewidth=0,
    label="80 % of samples",
)
axes.plot(noise[:-1], n_behind[1], color=BLUE, label="median")
axes.axvline(h_g, color=VERMILION, linestyle="--", label="$h_G$ of fresh images")
axes.set(
    xscale="log",
    yscale="log",
    xlim=(noise[0], noise[-2]),
    xlabel=r"noise $\sigma$, decreasing (pixel values)",
    ylabel="effective number of training images behind a sample",
)
axes.legend(frameon=False)

panels = right.subplots(6, 7)
for row, name in enumerate(["diffusion", "kernel density", "mixture of 400"]):
    queries = samples[name]
    share = auditor.diagnose(queries).max_weight
    suspects = np.argsort(-share)[:7]
    sources = train[neighbors.kneighbors(queries[suspects])[1][:, 0]]
    for column, i in enumerate(suspects):
        above, below = panels[2 * row : 2 * row + 2, column]
        above.set_title(f"{share[i]:.1%}", fontsize=8)
        for panel, image in [(above, queries[i]), (below, sources[column])]:
            pixels = np.zeros(64)
            pixels[inked] = image
            panel.imshow(pixels.reshape(8, 8), cmap="gray_r", vmin=0, vmax=16)
            panel.set(xticks=[], yticks=[])
    panels[2 * row, 0].set_ylabel(
        name.replace(" of", "\nof").replace(" d", "\nd"), fontsize=8
    )
    panels[2 * row + 1, 0].set_ylabel("source", fontsize=8)
right.supxlabel("samples, the share of one training image, and that image", fontsize=9)
# sphinx_gallery_start_ignore
import sys

if "sphinx_gallery" not in sys.modules:
    figure.savefig("plot_memorisation.png", dpi=110)
# sphinx_gallery_end_ignore
plt.show()
