"""
Which texts are new?
====================

Embeddings of texts are vectors of length one. A density on the sphere learns what known
texts are like, and says of each new text how usual it is. The texts are docstrings, so
that nothing is downloaded.
"""

# %%
# Texts and their embeddings
# --------------------------
#
# Known texts are from numpy, scipy and scikit-learn, new ones from Python itself. Words
# are counted and brought to 100 features. The embedding is fitted to a third of the known
# texts, and the density to other ones: an embedding that has seen the rows makes fresh
# texts look strange.

import inspect
from importlib import import_module

import matplotlib.pyplot as plt
import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer

from skhdkde import HighDimKernelDensity

KNOWN = """numpy numpy.linalg numpy.ma scipy.fft scipy.integrate scipy.interpolate
scipy.linalg scipy.ndimage scipy.optimize scipy.signal scipy.sparse scipy.spatial
scipy.special scipy.stats sklearn.cluster sklearn.covariance sklearn.datasets
sklearn.decomposition sklearn.ensemble sklearn.linear_model sklearn.manifold
sklearn.metrics sklearn.model_selection sklearn.neighbors sklearn.preprocessing"""
NEW = """argparse asyncio configparser email.message http.client logging socket sqlite3
ssl subprocess tarfile threading unittest urllib.request zipfile shutil pathlib json"""


def docstrings(modules):
    """Texts of functions and classes, of 20 words at least."""
    things = [vars(import_module(module)).values() for module in modules.split()]
    texts = {inspect.getdoc(each) or "" for some in things for each in some}
    return np.array(sorted(text for text in texts if len(text.split()) >= 20))


rng = np.random.default_rng(0)
known, new_texts = rng.permutation(docstrings(KNOWN)), docstrings(NEW)
embedding = make_pipeline(
    TfidfVectorizer(sublinear_tf=True, stop_words="english", min_df=3),
    TruncatedSVD(100, random_state=0),
    Normalizer(),
).fit(known[::3])
train, fresh = (embedding.transform(known[start::3]) for start in (1, 2))
new = embedding.transform(new_texts)
print(f"{len(train)} texts to learn from, {len(fresh)} fresh and {len(new)} new ones")

# %%
# A density on the sphere
# -----------------------
#
# ``held_out_log_density_`` has the log density of each training text by fits without it.
# A text is called new if 95 % of these are higher.

kde = HighDimKernelDensity(support="sphere", covariance_type="auto", random_state=0)
kde.fit(train)
threshold = np.quantile(kde.held_out_log_density_, 0.05)
of_fresh, of_new = kde.score_samples(fresh), kde.score_samples(new)
print(f"called new: {np.mean(of_fresh < threshold):.0%} of the fresh texts, ", end="")
print(f"{np.mean(of_new < threshold):.0%} of those of Python itself")

# %%
plt.rc("font", size=16)
figure, ax = plt.subplots(figsize=(6, 4.4), layout="constrained")
bins = np.linspace(60, 350, 30)
ax.hist(of_fresh, bins, color="#0072B2", alpha=0.7, label="known kind")
ax.hist(of_new, bins, color="#D55E00", alpha=0.7, label="new kind")
ax.axvline(threshold, color="black", linestyle="--")
ax.set(xlabel="log density on the sphere (nats)", ylabel="texts")
ax.legend(frameon=False)

# %%
# Beside the nearest neighbour
# ----------------------------
#
# The cosine to the nearest training text ranks the texts as well as the density does. The
# density also gives the threshold above, and samples. Its kernels take their shape from
# the texts, which makes fresh texts more likely than round kernels do.

is_new = np.repeat([False, True], [len(fresh), len(new)])
cosines = np.vstack([fresh, new]) @ train.T
print(f"area under the curve, cosine: {roc_auc_score(is_new, -cosines.max(axis=1)):.3f}")
scores = np.concatenate([of_fresh, of_new])
print(f"area under the curve, density: {roc_auc_score(is_new, -scores):.3f}")
round_kernels = HighDimKernelDensity(support="sphere").fit(train)
gain = of_fresh.mean() - round_kernels.score_samples(fresh).mean()
print(f"gain over round kernels: {gain:.0f} nats per fresh text")
norms = np.linalg.norm(kde.sample(100, random_state=0), axis=1)
print(f"lengths of samples: {norms.min():.3f} to {norms.max():.3f}")

plt.show()
