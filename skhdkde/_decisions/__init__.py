"""Decisions by densities: which rows are outliers, and which class a row is of.

::

    DensityOutlierDetector   a density of the training rows, and how low is too low
      central_rows           training rows without those that may be anomalies
    DensityClassifier        a density for each class, and Bayes' rule
      best_temperature       how far posterior probabilities are to be trusted
    Reference                held-out log densities, and p-values by them: of both

================  ======================================================================
outlier_detector  `DensityOutlierDetector`
classifier        `DensityClassifier`
p_values          `Reference`
trimming          `central_rows`
temperature       `best_temperature`
relayed_warnings  errors and warnings of fits to some of the rows
training_rows     `DistinctRows`, by which training rows are known again
================  ======================================================================
"""

from skhdkde._decisions.classifier import DensityClassifier
from skhdkde._decisions.outlier_detector import DensityOutlierDetector
