"""Figures are drawn without a window, in doctests too."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")
