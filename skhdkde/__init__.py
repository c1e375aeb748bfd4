"""Kernel density estimation in high dimension, in scikit-learn's manner."""

import skhdkde.information as information
import skhdkde.private as private
import skhdkde.regimes as regimes
from skhdkde._data import DataReport
from skhdkde._decisions import DensityClassifier, DensityOutlierDetector
from skhdkde._diagnosis import Diagnosis
from skhdkde._displays import BandwidthDisplay, RegimeDisplay
from skhdkde._estimator import HighDimKernelDensity
from skhdkde._imputer import DensityImputer
from skhdkde._scorers import kl_scorer, make_kl_scorer
from skhdkde._selection import BandwidthSearch, select_bandwidth

__version__ = "0.1.0.dev0"

__all__ = [
    "BandwidthDisplay",
    "BandwidthSearch",
    "DataReport",
    "DensityClassifier",
    "DensityImputer",
    "DensityOutlierDetector",
    "Diagnosis",
    "HighDimKernelDensity",
    "RegimeDisplay",
    "information",
    "kl_scorer",
    "make_kl_scorer",
    "private",
    "regimes",
    "select_bandwidth",
]
