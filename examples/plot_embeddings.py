"""
Embeddings: which texts are new?
================================

Embeddings of texts have unit norm. This example makes some, without a download, from the
docstrings of numpy, scipy and scikit-learn. It fits densities in the space around the
sphere and on it, and asks which texts are from another library.
"""

# %%
# Texts, and vectors of unit norm
# -------------------------------
#
# Words are counted and weighted by how rare they are, and a singular value decomposition
# brings the counts to 200 features (latent semantic analysis). It is fitted to a third of
# the texts: an embedding that has seen the rows of a density makes fresh ones look
# different. Then each row is divided by its norm.

import importlib
import inspect

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import gammaln
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer

from skhdkde import HighDimKernelDensity

KNOWN = """numpy numpy.fft numpy.linalg numpy.ma numpy.random scipy.fft scipy.integrate
scipy.interpolate scipy.linalg scipy.ndimage scipy.optimize scipy.signal scipy.sparse
scipy.spatial scipy.special scipy.stats sklearn.cluster sklearn.covariance
sklearn.datasets sklearn.decomposition sklearn.ensemble sklearn.linear_model
sklearn.manifold sklearn.metrics sklearn.mixture sklearn.model_selection
sklearn.neighbors sklearn.preprocessing sklearn.svm sklearn.tree"""
NEW = """argparse asyncio configparser email.message http.client logging logging.handlers
socket sqlite3 ssl subprocess tarfile threading unittest urllib.request zipfile"""


def docstrings(modules):
    """Texts of public functions, classes and methods, with a name of each."""
    found = {}
    for module in map(importlib.import_module, modules.split()):
        library = module.__name__.split(".")[0]
        for name, thing in vars(module).items():
            home = getattr(thing, "__module__", None) or library
            own = callable(thing) and home.startswith(library)
            if not own or name.startswith("_"):
                continue
            found.setdefault(inspect.getdoc(thing), f"{module.__name__}.{name}")
            for method, of_it in inspect.getmembers(thing, inspect.isroutine):
                if inspect.isclass(thing) and not method.startswith("_"):
                    found.setdefault(inspect.getdoc(of_it), f"{name}.{method}")
    return {text: name for text, name in found.items() if len((text or "").split()) >= 20}


texts, others = np.array(list(docstrings(KNOWN))), docstrings(NEW)
print(f"{len(texts)} texts of numerical libraries, {len(others)} of Python's own")


def without_near_duplicates(X, largest_cosine=0.9):
    """Rows, in their order, that are no nearer to an earlier one."""
    kept = []
    for row in range(len(X)):
        if not kept or (X[kept] @ X[row]).max() <= largest_cosine:
            kept.append(row)
    return X[kept]


def split(seed):
    """Training and fresh rows, and rows from another library."""
    order = np.random.default_rng(seed).permutation(len(texts))
    for_embedding, rest = np.split(order, [len(texts) // 3])
    embedding = make_pipeline(
        TfidfVectorizer(sublinear_tf=True, stop_words="english", min_df=3),
        TruncatedSVD(200, random_state=0),
        Normalizer(),
    ).fit(texts[for_embedding])
    X = without_near_duplicates(embedding.transform(texts[rest]))
    new = embedding.transform(list(others))
    n_train = 3 * len(X) // 4
    return X[:n_train], X[n_train:], new


splits = [split(seed) for seed in range(5)]
train, fresh, new = splits[0]
print(f"{len(train)} to train on, {len(fresh)} fresh and {len(new)} new ones")

# %%
# Around the sphere, or on it
# ---------------------------
#
# Log densities on the sphere and around it are in different units, and not comparable.
# Norms of samples, and how well new texts are told from fresh ones, are.

STRUCTURE = {
    "covariance_type": "full",
    "kernel": "student",
    "preserve_variance": True,
}
SETTINGS = {
    "flat": {},
    "flat, full, student": STRUCTURE,
    "sphere: von Mises-Fisher": {"support": "sphere"},
    "sphere: student": {"support": "sphere", "kernel": "student"},
    "sphere: full, student": {"support": "sphere", **STRUCTURE},
}


def measure(parameters, train, fresh, new):
    """Mean log density of fresh rows, area under the curve, share of p < 0.05, norms."""
    kde = HighDimKernelDensity(random_state=0, **parameters).fit(train)
    scores = [kde.score_samples(rows) for rows in (fresh, new)]
    known = np.sort(kde.held_out_log_density_)
    p_values = [(1 + np.searchsorted(known, s)) / (1 + len(known)) for s in scores]
    is_new = np.repeat([False, True], [len(fresh), len(new)])
    norms = np.linalg.norm(kde.sample(500, random_state=0), axis=1)
    return [
        scores[0].mean(),
        roc_auc_score(is_new, -np.concatenate(scores)),
        *(np.mean(p < 0.05) for p in p_values),
        norms.mean(),
        norms.std(),
    ]


def nearest_cosine(train, fresh, new):
    """Area under the curve of the cosine to the nearest training row."""
    queries = np.vstack([fresh, new])
    is_new = np.arange(len(queries)) >= len(fresh)
    return roc_auc_score(is_new, -(queries @ train.T).max(axis=1))


figures = {
    name: np.array([measure(parameters, *each) for each in splits])
    for name, parameters in SETTINGS.items()
}
cosine = np.array([nearest_cosine(*each) for each in splits])
print("means of five random splits; p < 0.05 of fresh and of new texts")
print(
    f"{'':26}{'log density':>12}{'area':>8}{'fresh':>7}{'new':>6}{'norm of samples':>18}"
)
print(f"{'cosine to the nearest':26}{'':12}{cosine.mean():8.4f}")
for name, found in figures.items():
    score, area, of_fresh, of_new, norm, spread = found.mean(axis=0)
    print(
        f"{name:26}{score:12.1f}{area:8.4f}{of_fresh:7.0%}{of_new:6.0%}"
        f"{norm:11.3f} +- {spread:.3f}"
    )

# %%
# Flat samples have too large a norm: a spherical kernel of bandwidth ``h`` adds
# ``d h ** 2`` to its square. One that preserves variance has the right norm on average.
#
# The spherical kernels, flat or not, rank texts as the cosine to the nearest training
# text does, since with many features the nearest decides. A structure knows in which
# directions texts differ anyway, and tells new ones better, in each of the splits. Around
# the sphere it does so as well as on it: a ranking does not need the sphere. Samples do,
# and log densities that can be held against those of other densities on the sphere.
#
# Which texts are the least and the most usual ones of the other libraries?

kde = HighDimKernelDensity(support="sphere", random_state=0, **STRUCTURE).fit(train)
log_density = kde.score_samples(new)
names, order = np.array(list(others.values())), np.argsort(log_density)
print("least usual: " + ", ".join(names[order[:5]]))
print("most usual:  " + ", ".join(names[order[::-1][:5]]))

# %%
# Figure
# ------
#
# Left, norms of samples. Middle, what the estimates on the sphere gain over the uniform
# density, whose log density is minus the logarithm of the area. Right, log densities of
# texts that the estimate has not seen; below the line are 5 % of the training texts,
# scored by fits without them.

BLUE, VERMILION, ORANGE = "#0072B2", "#D55E00", "#B87700"  # safe for the colour-blind

figure, axes = plt.subplots(1, 3, figsize=(11.5, 3.9), layout="constrained")
left, middle, right = axes

bins = np.linspace(0.65, 1.55, 61)
for name, color, at, words in [
    ("flat", VERMILION, (1.26, 8.5), "flat: off\nthe sphere"),
    ("flat, full, student", ORANGE, (0.66, 4.6), "flat, variance\npreserved"),
]:
    flat = HighDimKernelDensity(random_state=0, **SETTINGS[name]).fit(train)
    norms = np.linalg.norm(flat.sample(4000, random_state=0), axis=1)
    left.hist(norms, bins, density=True, color=color, alpha=0.7)
    left.text(*at, words, color=color)
left.axvline(1.0, color=BLUE, linewidth=3)
left.text(1.015, 10.6, 'support="sphere"', color=BLUE)
left.set(title="Do samples stay on the sphere?", xlabel="norm of a sample")
left.set(ylabel="frequency", yticks=[], xlim=(0.65, 1.55), ylim=(0, 11.5))

d = train.shape[1]
uniform = gammaln(d / 2) - d / 2 * np.log(np.pi) - np.log(2)
names = {
    "sphere: full, student": "full\ncovariance,\nStudent",
    "sphere: student": "Student",
    "sphere: von Mises-Fisher": "von Mises-\nFisher",
}
gains = [figures[name][:, 0].mean() - uniform for name in names]
bars = middle.barh(list(names.values()), gains, color=BLUE)
middle.bar_label(bars, fmt="%.0f nats", padding=-54, color="white")
middle.set(title="How likely are fresh texts?", xlabel="above the uniform density")

bins = np.linspace(190, 450, 53)
for rows, color, at, words in [
    (fresh, BLUE, (358, 0.0152), "fresh texts"),
    (new, VERMILION, (192, 0.0265), "texts of another library"),
]:
    scores = np.clip(kde.score_samples(rows), bins[0], bins[-1])
    right.hist(scores, bins, density=True, color=color, alpha=0.6)
    right.text(*at, words, color=color)
threshold = np.quantile(kde.held_out_log_density_, 0.05)
right.axvline(threshold, color="black", linestyle="--", ymax=0.88)
right.text(threshold + 4, 0.0225, "p = 0.05")
right.set(title="Which texts are new?", xlabel="log density on the sphere (nats)")
right.set(ylabel="frequency", yticks=[], xlim=(190, 450), ylim=(0, 0.029))

# sphinx_gallery_start_ignore
import sys

if "sphinx_gallery" not in sys.modules:
    figure.savefig("plot_embeddings.png", dpi=110)
# sphinx_gallery_end_ignore
plt.show()
