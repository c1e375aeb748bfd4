"""A GPU that is pretended on the CPU: its tensors are kept apart from the host's.

What a card would refuse is refused: operations on tensors of both, and reading one of the
GPU as if it were on the host. What a card would have to wait for is counted: copies
either way, and numbers that the host reads. Passes over tiles are counted too.
"""

import contextlib
import dataclasses
import types

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

PLACE = torch.device("cuda", 0)
# What the host has to wait for: sizes that depend on values, and values.
WAITING = ("aten.nonzero.", "aten._local_scalar_dense.", "aten.masked_select.")
# What only names other parts of memory.
VIEWS = ("view", "slice", "select", "as_strided", "t.", "expand", "unsqueeze", "unbind")


@dataclasses.dataclass
class Counts:
    """What was counted."""

    uploads: list = dataclasses.field(default_factory=list)  # bytes of each
    downloads: list = dataclasses.field(default_factory=list)  # bytes of each
    waits: int = 0  # times the host waited for a value
    # (name, largest number of elements read or written) of each operation
    operations: list = dataclasses.field(default_factory=list)

    def passes(self, n_elements):
        """Names of the operations over so many elements."""
        return [name for name, size in self.operations if size == n_elements]


counts = Counts()


class OnGpu(torch.Tensor):
    """A tensor of the pretended GPU; ``inner`` has its values."""

    @staticmethod
    def __new__(cls, inner):
        # "meta" in the eyes of torch's own code, which would ask a driver otherwise
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device="meta",
        )
        tensor.inner = inner
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: PLACE)
    is_cuda = property(lambda self: True)

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})


def _run(function, args, kwargs):
    """Call a function of torch with the values of tensors, and count it."""
    name, target, found = str(function), kwargs.get("device"), []

    def inner(value):
        if isinstance(value, torch.Tensor):
            found.append(value)
        return value.inner if isinstance(value, OnGpu) else value

    args = tree_map(inner, args)
    kwargs = {k: inner(v) for k, v in kwargs.items() if k != "device"}
    if any(not isinstance(value, OnGpu) and value.dim() for value in found):
        raise RuntimeError(f"{name} of tensors on the GPU and on the host")
    result = function(*args, **kwargs, **({} if target is None else {"device": "cpu"}))
    if name.startswith("aten._to_copy") and str(target) == "cpu":
        counts.downloads.append(result.nbytes)
        return result
    own = {id(value.inner): value for value in found if isinstance(value, OnGpu)}
    _count(name, [value.inner for value in own.values()], result)

    def outer(value):
        if not isinstance(value, torch.Tensor):
            return value
        return own[id(value)] if id(value) in own else OnGpu(value)

    return tree_map(outer, result)


def _count(name, tensors, result):
    """Count an operation of tensors with a result."""
    counts.waits += name.startswith(WAITING)
    if not name.removeprefix("aten.").startswith(VIEWS):
        made = [value for value in tree_leaves(result) if torch.is_tensor(value)]
        size = max(value.numel() for value in tensors + made)
        counts.operations.append((name, size))


class _Calls(TorchFunctionMode):
    """Calls of torch's functions that name the pretended GPU, or index its tensors."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        indexing = torch.Tensor.__getitem__, torch.Tensor.__setitem__
        if function in indexing and isinstance(args[0], OnGpu):
            return _indexed(function, *args)
        if function is torch.Tensor.to and isinstance(args[1], torch.device):
            return _moved(args[0], args[1])
        if function is torch.where:
            args = _with_tensors(args)
        target = kwargs.get("device")
        if target is not None and torch.device(target).type == "cuda":
            kwargs["device"] = "cpu"  # made there
            return OnGpu(function(*args, **kwargs))
        return function(*args, **kwargs)


def _with_tensors(args):
    """Return arguments with tensors for numbers, of which a meta tensor has no value."""
    tensors = [value for value in args[1:] if isinstance(value, torch.Tensor)]
    if not isinstance(args[0], OnGpu) or not tensors:
        return args
    dtype = tensors[0].dtype
    return tuple(
        value if torch.is_tensor(value) else OnGpu(torch.tensor(value, dtype=dtype))
        for value in args
    )


def _indexed(function, tensor, index, *value):
    parts = index if isinstance(index, tuple) else (index,)
    for part in (*parts, *value):
        on_host = isinstance(part, torch.Tensor) and not isinstance(part, OnGpu)
        if isinstance(part, np.ndarray | list) or on_host:
            raise RuntimeError("a tensor on the GPU was indexed by one on the host")

    def inner(part):
        return part.inner if isinstance(part, OnGpu) else part

    parts = tuple(map(inner, parts)) if isinstance(index, tuple) else inner(index)
    value = tuple(map(inner, value))
    if value and torch.is_tensor(value[0]) and value[0].dtype != tensor.dtype:
        assert not any(map(torch.is_tensor, parts if isinstance(parts, tuple) else ()))
    result = function(tensor.inner, parts, *value)
    size = tensor.numel() if result is None else result.numel()
    gathers = any(map(torch.is_tensor, parts if isinstance(parts, tuple) else (parts,)))
    if gathers or value:
        counts.operations.append((function.__name__, min(size, tensor.numel())))
    return None if result is None else OnGpu(result)


def _moved(tensor, target):
    if target.type != "cuda":
        return tensor.to("cpu")
    if isinstance(tensor, OnGpu):
        return tensor
    counts.uploads.append(tensor.nbytes)
    return OnGpu(tensor.clone())


@contextlib.contextmanager
def pretended_gpu(monkeypatch, free_memory=2**34, capability=(9, 0)):
    """Let torch have the pretended GPU, and give its counts."""
    global counts
    from skhdkde._pairwise import torch_backend

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    stream = types.SimpleNamespace(synchronize=lambda: None)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda place: stream)
    monkeypatch.setattr(torch_backend, "free_memory", lambda place: free_memory)
    # no fused kernels: Triton would ask a driver
    monkeypatch.setattr(torch_backend.TorchDevice, "fused", lambda device, dtype: None)
    monkeypatch.setattr(torch_backend, "capability", lambda place: capability)
    torch_backend._points_on_gpu.clear()
    counts = Counts()
    with _Calls():
        yield lambda: counts
    torch_backend._points_on_gpu.clear()
