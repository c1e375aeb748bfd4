"""Arrays of other libraries in, the same out, where they are."""

import copy
import pickle

import numpy as np
import pytest
import sklearn
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skhdkde import HighDimKernelDensity, kl_scorer, select_bandwidth

torch = pytest.importorskip("torch")

DATA = np.random.default_rng(0).normal(size=(2, 300, 8))
METHODS = "score_samples", "log_density_gradient"


@pytest.fixture(autouse=True)
def dispatch():
    try:
        context = sklearn.config_context(array_api_dispatch=True)
        context.__enter__()
    except (ImportError, RuntimeError) as error:  # older scikit-learn or scipy
        pytest.skip(str(error))
    yield
    context.__exit__(None, None, None)


@pytest.fixture(params=["on the host", "as on a GPU"])
def backend(request):
    """The backend for tensors on the host, and for those treated as if on a GPU."""
    if request.param == "on the host":
        return "auto"
    request.getfixturevalue("tensors_as_on_a_gpu")
    return "torch"


def both(X, dtype=np.float64):
    return X.astype(dtype), torch.as_tensor(X.astype(dtype))


def agree(result, expected, dtype):
    assert isinstance(result, torch.Tensor)
    assert result.dtype == getattr(torch, np.dtype(dtype).name)
    tolerance = 2e-3 if dtype == np.float32 else 1e-9
    assert_allclose(result.numpy(), expected, atol=tolerance, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kernel", ["gaussian", "exponential", "epanechnikov"])
@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_tensor_in_tensor_out(backend, kernel, dtype, shift):
    Y, tensor = both(DATA[0] + shift, dtype)
    X, queries = both(DATA[1] + shift, dtype)
    h = 0.5 if kernel == "exponential" else 3.0 if kernel == "epanechnikov" else 1.0
    kde = HighDimKernelDensity(bandwidth=h, kernel=kernel).fit(Y)
    other = clone(kde).set_params(backend=backend).fit(tensor)
    for method in METHODS:
        agree(getattr(other, method)(queries), getattr(kde, method)(X), dtype)
    agree(other.score_samples(None), kde.score_samples(None), dtype)
    drawn = other.sample(5, random_state=0)
    agree(drawn, kde.sample(5, random_state=0), dtype)
    assert other.score(queries) == pytest.approx(kde.score(X), rel=1e-5)
    found, expected = other.diagnose(queries), kde.diagnose(X)
    assert_allclose(found.standard_error, expected.standard_error, rtol=0.05)


def test_parts_have_the_library_of_the_whole(backend):
    Y, tensor = both(DATA[0])
    make = HighDimKernelDensity(bandwidth=1.0)
    kde, other = make.fit(Y), clone(make).set_params(backend=backend).fit(tensor)
    for part in (lambda kde: kde.marginal([0, 1]), lambda kde: kde.conditional(0, 1.0)):
        expected, found = part(kde), part(other)
        agree(found.sample(5, 0), expected.sample(5, 0), np.float64)
        agree(found.score_samples(None), expected.score_samples(None), np.float64)


@pytest.mark.parametrize("rule", ["kl", "nearest", "gaussian", "scott"])
@pytest.mark.parametrize("weighted", [False, True])
def test_bandwidth_rules(backend, rule, weighted):
    Y, tensor = both(DATA[0])
    weights = np.random.default_rng(1).integers(0, 3, len(Y)) if weighted else None
    given = torch.as_tensor(weights) if weighted else None
    expected = select_bandwidth(Y, rule=rule, sample_weight=weights)
    found = select_bandwidth(tensor, rule=rule, sample_weight=given, backend=backend)
    assert found == pytest.approx(expected, rel=1e-6)
    kde = HighDimKernelDensity(bandwidth=rule, backend=backend)
    kde.fit(tensor, sample_weight=given)
    assert kde.bandwidth_ == pytest.approx(expected, rel=1e-6)
    plain = HighDimKernelDensity(bandwidth=rule).fit(Y, sample_weight=weights)
    agree(kde.score_samples(None), plain.score_samples(None), np.float64)


def test_duplicates_on_a_gpu(backend):
    Y, tensor = both(np.vstack([DATA[0], DATA[0][:20]]))
    with pytest.warns(UserWarning, match="20 of the 320"):
        expected = select_bandwidth(Y)
    with pytest.warns(UserWarning, match="20 of the 320"):
        found = select_bandwidth(tensor, backend=backend)
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("on_a_gpu", [False, True])
@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_every_backend_takes_tensors(name, on_a_gpu, request):
    if on_a_gpu:
        request.getfixturevalue("tensors_as_on_a_gpu")
    (Y, tensor), (X, queries) = both(DATA[0]), both(DATA[1])
    kde = HighDimKernelDensity(bandwidth=1.0, backend=name)
    expected = kde.fit(Y).score_samples(X)
    agree(kde.fit(tensor).score_samples(queries), expected, np.float64)


def test_far_queries(backend):
    Y, tensor = both(DATA[0])
    X, queries = both(1e200 * DATA[1])
    kde = HighDimKernelDensity(bandwidth=1.0, kernel="student", degrees_of_freedom=1.0)
    expected = kde.fit(Y).score_samples(X), kde.log_density_gradient(X)
    kde.set_params(backend=backend).fit(tensor)
    agree(kde.score_samples(queries), expected[0], np.float64)
    gradient = kde.log_density_gradient(queries)
    assert_allclose(gradient.numpy(), expected[1], rtol=1e-9)


def test_auto_is_torch_for_tensors_on_a_gpu(tensors_as_on_a_gpu):
    """For those of many features; of few, where KeOps is not installed."""
    many = torch.as_tensor(np.random.default_rng(0).normal(size=(20, 101)))
    assert HighDimKernelDensity(bandwidth=1.0).fit(many).backend_ == "torch"


def test_fit_leaves_the_data_where_they_are(tensors_as_on_a_gpu, monkeypatch):
    """Little of data on a GPU reaches the host: a sample of rows."""
    sample, taken, to_numpy = 2048 * 8, [], torch.Tensor.numpy

    def spy(tensor, *args, **options):
        taken.append(tensor.numel())
        return to_numpy(tensor, *args, **options)

    monkeypatch.setattr(torch.Tensor, "numpy", spy)
    tensor = torch.as_tensor(np.random.default_rng(0).normal(size=(20_000, 8)))
    kde = HighDimKernelDensity(bandwidth=1.0, backend="torch").fit(tensor)
    assert 0 < sum(taken) < sample + 1000
    kde.score_samples(tensor[:100])  # with its queries, and some numbers for each
    assert sum(taken) < sample + 3000
    taken.clear()
    HighDimKernelDensity(bandwidth="scott", backend="torch").fit(tensor)
    assert sum(taken) < sample + 1000


def test_pickles_hold_what_any_machine_can_load(backend):
    kde = HighDimKernelDensity(bandwidth=1.0, backend=backend).fit(
        torch.as_tensor(DATA[0])
    )
    expected = kde.score_samples(torch.as_tensor(DATA[1])).numpy()
    data = pickle.dumps(kde)
    assert b"_rebuild" not in data  # no tensor
    loaded = pickle.loads(data)
    assert_allclose(loaded.score_samples(DATA[1]), expected, rtol=1e-9)
    assert isinstance(loaded.score_samples(None), np.ndarray)
    assert_allclose(copy.deepcopy(kde).score_samples(DATA[1]), expected, rtol=1e-9)


def test_pipeline_and_scorer(backend):
    tensors = [torch.as_tensor(X) for X in DATA]
    pipes = [
        make_pipeline(StandardScaler(), HighDimKernelDensity(backend=name))
        for name in ("auto", backend)
    ]
    pipes[0].fit(DATA[0])
    pipes[1].fit(tensors[0])
    expected = kl_scorer(pipes[0], DATA[1])
    assert kl_scorer(pipes[1], tensors[1]) == pytest.approx(expected, rel=1e-6)


def test_without_dispatch_a_tensor_is_data_like_any_other():
    with sklearn.config_context(array_api_dispatch=False):
        kde = HighDimKernelDensity(bandwidth=1.0).fit(torch.as_tensor(DATA[0]))
        assert isinstance(kde.score_samples(torch.as_tensor(DATA[1])), np.ndarray)


def test_errors_name_the_parameter():
    with pytest.raises(ValueError, match=r"X.*NaN"):
        HighDimKernelDensity().fit(torch.full((5, 2), torch.nan))
    kde = HighDimKernelDensity(bandwidth=1.0).fit(torch.as_tensor(DATA[0]))
    with pytest.raises(ValueError, match="X has 7 features"):
        kde.score_samples(torch.as_tensor(DATA[1][:, :7]))
    with pytest.raises(TypeError, match=r"X.to_dense"):
        kde.fit(torch.as_tensor(DATA[0]).to_sparse())
    with pytest.raises(ValueError, match=r"X: Complex data not supported"):
        kde.fit(torch.as_tensor(DATA[0] + 1j))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("dispatch", [True, False])
def test_half_precision_becomes_float32(backend, dtype, dispatch):
    tensor = torch.as_tensor(DATA[0]).to(getattr(torch, dtype))
    kde = HighDimKernelDensity(bandwidth=1.0, backend=backend)
    with sklearn.config_context(array_api_dispatch=dispatch):
        result = kde.fit(tensor).score_samples(tensor)
    assert kde._density.dtype == np.float32
    assert isinstance(result, torch.Tensor) == dispatch
    wide = tensor.float().numpy()
    expected = HighDimKernelDensity(bandwidth=1.0).fit(wide).score_samples(wide)
    assert_allclose(np.asarray(result), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["int64", "bool"])
def test_other_dtypes_become_float64(backend, dtype):
    tensor = torch.as_tensor(DATA[0]).to(getattr(torch, dtype))
    kde = HighDimKernelDensity(bandwidth=1.0, backend=backend)
    result = kde.fit(tensor).score_samples(tensor)
    expected = HighDimKernelDensity(bandwidth=1.0).fit(tensor.double().numpy())
    agree(result, expected.score_samples(tensor.double().numpy()), np.float64)


def test_a_tensor_with_a_gradient(backend):
    """Nothing is recorded, and the data are not written to."""
    tensor = torch.as_tensor(DATA[0]).requires_grad_()
    kde = HighDimKernelDensity(bandwidth=1.0, backend=backend)
    result = kde.fit(tensor).score_samples(tensor)
    assert not result.requires_grad
    assert (tensor.detach().numpy() == DATA[0]).all()


@pytest.mark.parametrize("covariance_type", ["local", "auto"])
def test_mixtures_with_dispatch(covariance_type):
    """scikit-learn's do not work with it."""
    X = np.random.default_rng(0).normal(size=(80, 3))
    kde = HighDimKernelDensity(covariance_type=covariance_type, random_state=0)
    expected = kde.fit(X).score_samples(X)
    with sklearn.config_context(array_api_dispatch=True):
        assert_allclose(kde.fit(X).score_samples(X), expected)
