"""What must work where only the wheel and its required packages are installed."""

import importlib.resources

import numpy as np
from sklearn.datasets import load_breast_cancer

import skhdkde

X, malignant = load_breast_cancer(return_X_y=True)
train, test = X[::2], X[1::2]
kde = skhdkde.HighDimKernelDensity(covariance_type="auto", random_state=0).fit(train)
log_density = kde.score_samples(test)
assert np.isfinite(log_density).all()
assert kde.sample(5, random_state=0).shape == (5, X.shape[1])
detector = skhdkde.DensityOutlierDetector().fit(train)
assert set(detector.predict(test)) <= {-1, 1}
assert importlib.resources.files(skhdkde).joinpath("py.typed").is_file()
print(f"skhdkde {skhdkde.__version__}: {log_density.mean():.2f} nats per row")
