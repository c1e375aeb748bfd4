"""Everything that computes on threads of OpenMP works in a forked child.

Those threads are not forked: a child that asks for them waits for ever.
"""

import os
import subprocess
import sys

import pytest

CODE = """
import importlib.util, multiprocessing, warnings
import numpy as np
from sklearn.cluster import KMeans
from sklearn.covariance import EmpiricalCovariance
from sklearn.mixture import BayesianGaussianMixture
from sklearn.neighbors import KNeighborsTransformer
from skhdkde import HighDimKernelDensity

warnings.simplefilter("ignore")  # newer Pythons warn of fork beside threads

class Clustered(EmpiricalCovariance):
    def fit(self, X, y=None):
        labels = KMeans(2, n_init=1, random_state=0).fit(X).labels_
        return super().fit(X[labels == labels[0]])

rng = np.random.default_rng(0)
X = rng.standard_normal((3000, 3))
X[::2] += 5.0
few = X[:60]
mixture, fitted_one = (BayesianGaussianMixture(n_components=2) for _ in range(2))
transformer = KNeighborsTransformer(n_neighbors=64, algorithm="brute")
near = {"algorithm": "neighbors"}
cases = {
    "local": {"covariance_type": "local"},
    "a mixture of the user's": {"covariance_type": "local", "mixture": mixture},
    "one that is fitted": {
        "covariance_type": "local", "mixture": fitted_one.fit(few), "bandwidth": "kl"
    },
    "a covariance estimator of the user's": {
        "covariance_type": "full", "covariance_estimator": Clustered()
    },
    "auto": {"covariance_type": "auto", "bandwidth": "kl"},
    "student": {"covariance_type": "local", "kernel": "student", "degrees_of_freedom": 4},
    "a transformer": near | {"neighbors_index": transformer},
}
if importlib.util.find_spec("torch"):
    cases["torch"] = {"backend": "torch", "n_jobs": 2}
if importlib.util.find_spec("faiss"):
    cases["hnsw"] = near | {"neighbors_index": "hnsw"}
    cases["ivf"] = near | {"neighbors_index": "ivf"}

def fitted(name):
    Y = X if "neighbors_index" in cases[name] else few
    parameters = {"bandwidth": 0.5, "random_state": 0} | cases[name]
    return HighDimKernelDensity(**parameters).fit(Y)

def in_child(name):
    for kde in (before[name], fitted(name)):
        assert np.allclose(kde.score_samples(few), expected[name], atol=1e-6, rtol=1e-6)

KMeans(2, n_init=1).fit(X)
before = {name: fitted(name) for name in cases}
expected = {name: kde.score_samples(few) for name, kde in before.items()}
context = multiprocessing.get_context("fork")
children = {name: context.Process(target=in_child, args=(name,)) for name in cases}
for child in children.values():
    child.start()
for name, child in children.items():
    child.join(timeout=40)
    if child.exitcode != 0:
        child.kill()
        print(name, child.exitcode, flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_fits_and_scores_in_forked_children():
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}  # of one there is no pool
    result = subprocess.run(
        [sys.executable, "-c", CODE],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
