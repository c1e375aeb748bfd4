"""Progress, time limit and interruption of the search over structures."""

import itertools
import re
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from threadpoolctl import threadpool_info
from tqdm.std import tqdm

from skhdkde import HighDimKernelDensity, kl_scorer
from skhdkde._pairwise import backends
from skhdkde._selection import Folds, SearchPlan, plan

X = np.random.default_rng(0).normal(size=(60, 2)) @ np.diag([1.0, 2.0])
# Of X: spherical, diag and full; 4 mixtures with full components, 1 with pooled and 1
# with diagonal ones.
N_SETTINGS = 9


def auto(**parameters):
    parameters = {"covariance_type": "auto", "random_state": 0, **parameters}
    return HighDimKernelDensity(**parameters)


def shown(text):
    """What was on the screen, one after the other."""
    return [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]


def names_of(search):
    """Return covariance type and mixture of all candidates."""
    candidates = search.candidates
    mixtures = [f", {c.mixture!r}" if c.mixture else "" for c in candidates]
    return {c.covariance_type + m for c, m in zip(candidates, mixtures, strict=True)}


# What is shown.


def test_one_bar(capsys):
    kde = auto(verbose=1).fit(X)
    out, err = capsys.readouterr()
    assert out == ""
    lines = shown(err)
    parts = [
        re.fullmatch(r"structure search: +(\d+)%\|.*\| (\d+)/(\d+) \[(.*)\]", line)
        for line in lines
    ]
    assert all(parts)  # nothing else, of whatever is inside
    assert err.count("\n") == 1
    done = [int(p[2]) for p in parts]
    totals = [int(p[3]) for p in parts]
    assert done == sorted(done)
    assert set(totals[:N_SETTINGS]) == {2 * N_SETTINGS + 1}
    added = (max(totals) - totals[0]) // 2  # the leader with a smaller ridge, if any
    assert added in (0, 1)
    assert parts[-1][1] == "100"
    assert done[-1] == totals[-1] == 2 * (N_SETTINGS + added) + 1
    for name in names_of(kde.bandwidth_search_):
        assert any(f"now {name}, 1 fold" in line for line in lines), name
    assert f"best {kde.bandwidth_search_.mean_log_density.max():.4g} nats" in lines[-1]
    assert max(len(line) for line in lines) < 160
    assert "inf" not in err


def test_a_line_for_each(capsys):
    kde = auto(verbose=2).fit(X)
    lines = [
        re.fullmatch(r"(1 fold|all folds): (\S+) nats \(best (\S+)\): (.*)", line)
        for line in shown(capsys.readouterr().err)
        if not line.startswith("structure search: ")
    ]
    assert all(lines)
    search = kde.bandwidth_search_
    looked = [line[4] for line in lines if line[1] == "1 fold"]
    assert len(looked) == len(set(looked))
    assert set(looked) == names_of(search)
    # the best is of as many folds
    for where in ("1 fold", "all folds"):
        own = [line for line in lines if line[1] == where]
        means = [float(line[2]) for line in own]
        assert [float(line[3]) for line in own] == list(itertools.accumulate(means, max))
    last = float(lines[-1][3])
    assert last == pytest.approx(search.mean_log_density.max(), abs=1e-4)


@pytest.mark.parametrize("covariance_type", ["auto", "stack", "spherical"])
def test_silence(capsys, covariance_type):
    auto(covariance_type=covariance_type).fit(X)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "parameters, labels",
    [
        ({"covariance_type": "spherical"}, ["bandwidth"]),
        ({"kernel": "student", "covariance_type": "spherical"}, ["structure search"]),
        (  # of all points, once the search is over
            {"covariance_type": "neighborhood", "preserve_variance": True},
            ["neighbors", "structure search"],
        ),
        (
            {"covariance_type": "stack", "feature_maps": "yeo-johnson"},
            ["structure search"],
        ),
    ],
    ids=str,
)
def test_bars_of_other_searches(capsys, parameters, labels):
    """The textbook's search has its own; none is inside of another."""
    auto(verbose=1, **parameters).fit(X)
    found = {line.split(":")[0] for line in shown(capsys.readouterr().err)}
    assert sorted(found) == labels


@contextmanager
def bar_of(n_settings, seconds):
    """Give a plan, and what its bar shows at a time after its start."""
    with SearchPlan(n_settings, verbose=1) as of_search:
        bar = of_search._bar
        bar._time = lambda: bar.start_t + seconds
        yield of_search, lambda: str(bar)


def test_remaining_time_is_by_steps_that_took_any(capsys):
    with bar_of(10, seconds=10.0) as (of_search, shows):
        of_search.begin("one", "1 fold")
        of_search.done("one", -3.0)
        assert "1/21 [00:10<03:20" in shows()  # 20 steps of 10 seconds
        of_search.drop(9)
        assert "10/21 [00:10<01:50" in shows()  # 11 of them
        of_search.extend(2)
        assert "10/23 [00:10<02:10" in shows()
    assert "23/23" in shown(capsys.readouterr().err)[-1]


def test_long_names_are_cut(capsys):
    name = "GaussianMixture(means_init=array([[1.0, 2.0],\n" + 30 * "  [3.0, 4.0],\n"
    with bar_of(3, seconds=1.0) as (of_search, shows):
        of_search.begin(name, "1 fold")
        assert "now GaussianMixture(means_init=" in shows()
        assert len(shows()) < 130
        assert "\n" not in shows()
    assert max(map(len, shown(capsys.readouterr().err))) < 130


# The time.


@pytest.mark.parametrize(
    "parameters, first, left",
    [
        ({}, "spherical", ["diag", "full", "local, GaussianMixture(1, 'full')"]),
        ({"covariance_type": "stack"}, "spherical", ["diag", "full"]),
        ({"feature_maps": "auto"}, "spherical", ["diag", "full"]),
        (
            {"covariance_type": "local"},
            "local, GaussianMixture(1, 'full')",
            [f"local, GaussianMixture({k}, 'full')" for k in (2, 4, 8)],
        ),
        (
            {"covariance_type": "neighborhood", "preserve_variance": True},
            "neighborhood",
            ["neighborhood, 20 neighbours, shrinkage 0.3"],
        ),
    ],
    ids=str,
)
def test_no_time_at_all(parameters, first, left):
    """The first setting is compared with nothing, and fitted."""
    kde = auto(max_search_seconds=0, **parameters)
    with pytest.warns(UserWarning, match="max_search_seconds=0 ended") as record:
        kde.fit(X)
    assert len(record) == 1
    assert record[0].filename == __file__
    message = str(record[0].message)
    names = message.split("on all folds: ")[1].split(". The fit is")[0].split("; ")
    assert names[: len(left)] == left
    assert first not in names
    assert len(names) <= 9
    assert names_of(kde.bandwidth_search_) == {first}
    assert [c.weight for c in kde.bandwidth_search_.candidates].count(1.0) == 1
    assert np.isfinite(kde.score_samples(X)).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("covariance_type", ["auto", "stack"])
def test_enough_time_changes_nothing(covariance_type):
    one, other = (
        auto(covariance_type=covariance_type, max_search_seconds=s).fit(X)
        for s in (None, 1e6)
    )
    assert_array_equal(one.score_samples(X), other.score_samples(X))
    assert repr(one.bandwidth_search_.candidates) == repr(
        other.bandwidth_search_.candidates
    )


@pytest.mark.parametrize("n_checks", [1, 3, 20, 30, 31, 32, 33])
@pytest.mark.parametrize("covariance_type", ["auto", "stack"])
def test_time_is_up_in_the_middle(monkeypatch, covariance_type, n_checks):
    """After a number of questions whether it is: the best so far is fitted."""
    clock = SimpleNamespace(monotonic=itertools.count().__next__)
    monkeypatch.setattr(plan, "time", clock)
    kde = auto(
        covariance_type=covariance_type,
        feature_maps="auto",
        max_search_seconds=n_checks,
    )
    with pytest.warns(UserWarning, match=f"max_search_seconds={n_checks} ended"):
        kde.fit(X)
    candidates = kde.bandwidth_search_.candidates
    assert sum(c.weight for c in candidates) == pytest.approx(1.0)
    assert all(np.isfinite(c.mean_log_density) for c in candidates)
    best = max(candidates, key=lambda c: c.mean_log_density)
    if covariance_type == "auto":
        assert best.weight == 1.0
    assert np.isfinite(kde.score_samples(X)).all()


# What happens in the middle.


class Stop(Exception):
    pass


def in_a_fit(monkeypatch, error):
    calls, components = itertools.count(), Folds.components

    def stopped(self, structure, fold):
        if next(calls) == 8:
            raise error
        return components(self, structure, fold)

    monkeypatch.setattr(Folds, "components", stopped)


def in_a_thread(monkeypatch, error):
    calls = itertools.count()

    @contextmanager
    def stopped(*_, **__):
        def advance(amount):
            if next(calls) == 20:
                raise error

        yield advance

    monkeypatch.setattr(backends, "progress_bar", stopped)


@pytest.mark.parametrize("where", [in_a_fit, in_a_thread])
@pytest.mark.parametrize("error", [KeyboardInterrupt, Stop])
@pytest.mark.parametrize("covariance_type", ["auto", "stack"])
def test_interruption(monkeypatch, capsys, covariance_type, error, where):
    kde = auto(bandwidth=0.5, covariance_type="full", n_jobs=2).fit(X)
    expected = kde.score_samples(X)
    kde.set_params(bandwidth="kl", covariance_type=covariance_type, verbose=1)
    before, threads = dict(vars(kde)), threading.active_count()
    pools = threadpool_info()
    with monkeypatch.context() as patch:
        where(patch, error)
        with pytest.raises(error):
            kde.fit(2.0 * X[:50])
    assert vars(kde).keys() == before.keys()
    assert all(vars(kde)[name] is value for name, value in before.items())
    assert threading.active_count() == threads
    assert threadpool_info() == pools
    assert not tqdm._instances  # the bar is closed, and does not say 100 %
    assert "100%" not in shown(capsys.readouterr().err)[-1]
    kde.set_params(verbose=0)
    assert_array_equal(kde.score_samples(X), expected)


# scikit-learn's tools.


def test_clone_and_grid_search():
    parameters = {
        "max_search_seconds": 1e6,
        "covariance_type": "stack",
        "feature_maps": {0: ("log", -100.0)},
    }
    kde = auto(**parameters)
    copied = clone(kde.fit(X))
    assert copied.get_params() == kde.get_params()
    assert not hasattr(copied, "bandwidth_")
    grid = {
        "covariance_type": ["diag", "stack"],
        "feature_maps": [None, "yeo-johnson"],
        "max_search_seconds": [1e6],
    }
    skewed = np.exp(X)
    found = GridSearchCV(auto(kernel="student"), grid, scoring=kl_scorer, cv=2).fit(
        skewed
    )
    assert found.best_params_["feature_maps"] == "yeo-johnson"
    assert np.isfinite(found.cv_results_["mean_test_score"]).all()
