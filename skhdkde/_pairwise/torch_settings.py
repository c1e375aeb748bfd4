"""What torch is set to while a pass runs."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch

_MATMUL: Any = torch.backends.cuda.matmul
_MATMUL_ON_CPU: Any = getattr(getattr(torch.backends, "mkldnn", None), "matmul", None)


class OlderPrecision:
    """The precision of float32 products as one setting for all devices."""

    full: Any = "highest"

    def get(self) -> Any:
        """Return the precision."""
        return torch.get_float32_matmul_precision()

    def set(self, value: Any) -> None:
        """Set the precision to what `get` returned, or to ``full``."""
        torch.set_float32_matmul_precision(value)


class PrecisionByBackend(OlderPrecision):
    """That as a setting for GPUs and one for the CPU, since torch 2.9.

    Users may have set either kind. Where they differ torch refuses to read the older one.
    """

    full = ("ieee", "ieee")

    def get(self) -> Any:
        return _MATMUL.fp32_precision, _MATMUL_ON_CPU.fp32_precision

    def set(self, value: Any) -> None:
        _MATMUL.fp32_precision, _MATMUL_ON_CPU.fp32_precision = value


BY_BACKEND = hasattr(_MATMUL, "fp32_precision") and hasattr(
    _MATMUL_ON_CPU, "fp32_precision"
)
precision = PrecisionByBackend() if BY_BACKEND else OlderPrecision()


class Settings:
    """A number of threads, and products in full precision, while a pass runs.

    The precision belongs to the process: with several passes at once the first to come
    sets it, and the last to leave sets it back. A number of threads belongs to the thread
    that asks for it.
    """

    def __init__(self):
        self._lock, self._n_passes = threading.Lock(), 0
        self._before: Any = None

    @contextlib.contextmanager
    def __call__(self, n_threads: int) -> Iterator[None]:
        n_threads_before = torch.get_num_threads()
        with self._lock:
            if not self._n_passes:
                self._before = precision.get()
                precision.set(precision.full)
            self._n_passes += 1
        try:
            torch.set_num_threads(n_threads)
            yield
        finally:
            torch.set_num_threads(n_threads_before)
            with self._lock:
                self._n_passes -= 1
                if not self._n_passes:
                    precision.set(self._before)


settings = Settings()
