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
            if name.startswith("_") or not callable(thing) or not home.startswith(library):
                continue
            found.setdefault(inspect.getdoc(thing), f"{module.__name__}.{name}")
            for method, of_it in inspect.getmembers(thing, inspect.isroutine):
                if inspect.isclass(thing) and not method.startswith("_"):
                    found.setdefault(inspect.getdoc(of_it), f"{name}.{method}")
    return {text: name for text, name in found.items() if len((text or "").split()) >= 20}


texts, others = np.array(list(docstrings(KNOWN))), list(docstrings(NEW))
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
    rows = embedding.transform(texts[rest])
    X = without_near_duplicates(rows[np.linalg.norm(rows, axis=1) > 0.5])
    new = embedding.transform(others)
    n_train = 3 * len(X) // 4
    return X[:n_train], X[n_train:], new[np.linalg.norm(new, axis=1) > 0.5]


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
print(f"{'':26}{'log density':>12}{'area':>8}{'fresh':>7}{'new':>6}{'norm of samples':>18}")
print(f"{'cosine to the nearest':26}{'':12}{cosine.mean():8.4f}")
for name, found in figures.items():
    score, area, of_fresh, of_new, norm, spread = found.mean(axis=0)
    print(
        f"{name:26}{score:12.1f}{area:8.4f}{of_fresh:7.0%}{of_new:6.0%}"
        f"{norm:11.3f} +- {spread:.3f}"
    )
for name in ("flat, full, student", "sphere: full, student"):
    gain = figures[name][:, 1] - cosine
    print(f"{name}, area above the cosine's in each split: {gain.round(4)}")
