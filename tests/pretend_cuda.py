"""A pretended GPU on a machine without one: tensors that say ``cuda:n`` and hold their values on the CPU.

Inside `pretended`, ``torch.cuda`` answers for some GPUs. Every operation runs on the CPU; one on tensors of
two devices, or with a generator of another device, raises as CUDA's would. What makes the host wait for the
device is counted with the line of the kit that asked, and so is the first touch of CUDA.

It cannot show what a kernel does: its rounding, its speed, its memory, whether there is one. To PyTorch's C++
side the tensors are meta tensors with CUDA's keys, as those of ``FakeTensorMode`` are; a few functions that
take another path for meta tensors are done by hand below.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

KIT = "/fedlora_kit/"
BETWEEN_DEVICES = {"aten._to_copy.default", "aten.copy_.default"}
#: of these CUDA takes indices on the CPU
INDEXED = {
    "aten.index.Tensor",
    "aten.index_put_.default",
    "aten.index_put.default",
    "aten._index_put_impl_.default",
}
#: the host must know a value of the device before it can go on
READS = {
    "aten._local_scalar_dense.default",
    "aten.equal.default",
    "aten.is_nonzero.default",
    "aten.nonzero.default",
    "aten.masked_select.default",
    "aten._unique2.default",
    "aten.unique_dim.default",
    "aten.bincount.default",
    "aten.repeat_interleave.Tensor",
}
_Generator, _sdpa = torch.Generator, torch.nn.functional.scaled_dot_product_attention


class MixedDevices(RuntimeError):
    """Tensors of two devices, or another device's generator, in one operation."""


class Machine:
    """What happens on the pretended GPUs.

    Attributes:
        reads: line of the kit -> how often the host waited there for a value.
        started: where CUDA was started; None as long as it was not.
    """

    def __init__(self, count: int) -> None:
        self.count, self.current = count, 0
        self.reads: Counter[str] = Counter()
        self.started: str | None = None
        self.generators: dict[int, _PretendedGenerator] = {}  # by address; held, so that none is used again

    def start(self) -> None:
        self.started = self.started or _line()

    def device(self, named: Any) -> torch.device:
        """A device with its index; a GPU that is not there is CUDA's error."""
        device = torch.device("cuda", named) if isinstance(named, int) else torch.device(named)
        if device.type != "cuda":
            return device
        self.start()
        device = torch.device("cuda", self.current if device.index is None else device.index)
        if device.index >= self.count:
            raise RuntimeError("CUDA error: invalid device ordinal")
        return device


def _line() -> str:
    """The innermost line of the kit that led here."""
    frame = sys._getframe(1)
    while frame is not None and KIT not in frame.f_code.co_filename:
        frame = frame.f_back  # type: ignore[assignment]
    return f"{frame.f_code.co_filename.rpartition(KIT)[2]}:{frame.f_lineno}" if frame else "not in the kit"


class OnCard(torch.Tensor):
    """Says ``cuda:n``; ``inner`` holds the values on the CPU."""

    inner: torch.Tensor
    place: torch.device
    machine: Machine

    @staticmethod
    def __new__(cls, inner: torch.Tensor, place: torch.device, machine: Machine) -> OnCard:
        inner = inner.detach()
        shape = torch.empty_strided(inner.shape, inner.stride(), dtype=inner.dtype, device="meta")
        self = torch.Tensor._make_subclass(cls, shape, False, device_for_backend_keys=place)
        self.inner, self.place, self.machine = inner, place, machine
        return self

    device = property(lambda self: self.place)
    is_cuda = property(lambda self: True)

    def get_device(self) -> int:
        return self.place.index

    def __repr__(self, **_: Any) -> str:
        return f"OnCard({self.inner!r}, {self.place})"

    def __deepcopy__(self, memo: Any) -> OnCard:
        made = OnCard(self.inner.clone(), self.place, self.machine).requires_grad_(self.requires_grad)
        made.__dict__.update({k: v for k, v in self.__dict__.items() if k == "_is_param"})
        return made

    def tolist(self) -> Any:
        self.machine.reads[_line()] += 1
        return self.inner.tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError(f"can't convert {self.place} device type tensor to numpy. Use Tensor.cpu() first")

    __array__ = numpy
    __reduce_ex__ = numpy  # nothing is pickled from a device

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        leaf = next(t for t in _tensors((args, kwargs or {})) if type(t) is OnCard)
        return _run(leaf.machine, func, args, kwargs or {})


class _Operations(TorchDispatchMode):
    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self.machine = machine

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(self.machine, func, args, kwargs or {})


def _run(machine: Machine, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """One operation: on the CPU, as far as a GPU would do it."""
    leaves = list(_tensors((args, kwargs)))
    cards = [t for t in leaves if type(t) is OnCard]
    name = str(func)
    asked = kwargs.get("device")
    if (
        asked is not None
        and torch.device(asked).type == "meta"
        and (cards or name == "aten.scalar_tensor.default")
    ):
        asked = cards[0].place if cards else "cuda"  # "where that tensor is", from the C++ side
    target = machine.device(asked) if asked is not None else cards[0].place if cards else None
    if not cards and (target is None or target.type != "cuda"):
        return func(*args, **kwargs)
    _refuse_mixtures(machine, name, args, kwargs, leaves, target)
    if name in READS or (name in INDEXED and any(_mask(t) for t in args[1])):
        machine.reads[_line()] += 1
    inner_args, inner_kwargs = _inner(args), {k: _inner(v) for k, v in kwargs.items()}
    for word in ("pin_memory", "device"):
        inner_kwargs.pop(word, None)
    if name in BETWEEN_DEVICES:
        return _copied(machine, func, args, inner_args, inner_kwargs, target)
    if func is torch.ops.aten._local_scalar_dense.default:
        return inner_args[0].item()
    out = func(*inner_args, **inner_kwargs)
    if target is None or target.type != "cuda":
        return out
    wrapped = _wrapped(out, target, machine)
    if not func._schema.is_mutable:
        return wrapped
    if any(t.inner.shape != t.shape for t in cards):
        raise NotImplementedError(f"{name} changes a shape in place: the pretended GPU cannot follow")
    return _written(func, args, kwargs, wrapped)


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    for leaf in tree.values() if type(tree) is dict else tree:
        if isinstance(leaf, torch.Tensor):
            yield leaf
        elif type(leaf) in (list, tuple, dict):
            yield from _tensors(leaf)


def _inner(tree: Any) -> Any:
    if type(tree) in (list, tuple):
        return type(tree)(_inner(leaf) for leaf in tree)
    return tree.inner if type(tree) is OnCard else tree


def _wrapped(tree: Any, place: torch.device, machine: Machine) -> Any:
    if isinstance(tree, list | tuple):
        return tuple(_wrapped(leaf, place, machine) for leaf in tree)
    return OnCard(tree, place, machine) if isinstance(tree, torch.Tensor) else tree


def _mask(index: Any) -> bool:
    return isinstance(index, OnCard) and index.dtype in (torch.bool, torch.uint8)


def _refuse_mixtures(
    machine: Machine, name: str, args: Any, kwargs: Any, leaves: Any, target: torch.device | None
) -> None:
    places = {t.place for t in leaves if type(t) is OnCard}
    on_cpu = [t for t in leaves if isinstance(t, torch.Tensor) and not isinstance(t, OnCard) and t.ndim > 0]
    if name in INDEXED and isinstance(args[0], OnCard):
        on_cpu = [t for t in on_cpu if not any(t is index for index in args[1])]
    if name not in BETWEEN_DEVICES and (len(places) > 1 or (places and on_cpu)):
        found = sorted(map(str, places)) + ["cpu"] * bool(on_cpu)
        raise MixedDevices(f"{name} at {_line()}: expected all tensors on one device, found {found}")
    generator = kwargs.get("generator")
    if generator is not None:
        known = machine.generators.get(generator._cdata)
        if known is None or known.device != target:
            raise MixedDevices(f"{name} at {_line()}: a generator of another device than {target}")


def _copied(
    machine: Machine, func: Any, args: Any, inner: Any, kwargs: Any, target: torch.device | None
) -> Any:
    """A copy, within a device or between two; one to the host is a read."""
    to, source = (args[0].device, args[1]) if len(args) > 1 else (target, args[0])
    if isinstance(source, OnCard) and to.type == "cpu":
        machine.reads[_line()] += 1
    out = func(*inner, **{k: v for k, v in kwargs.items() if k != "non_blocking"})
    if len(args) > 1:
        return args[0]
    if out.untyped_storage().data_ptr() == inner[0].untyped_storage().data_ptr():
        out = out.clone()
    return OnCard(out, to, machine) if to.type == "cuda" else out


def _written(func: Any, args: Any, kwargs: Any, out: Any) -> Any:
    """What an operation in place gives back: the tensors that it was given."""
    schema = func._schema
    given = {
        a.name: kwargs.get(a.name, args[i] if i < len(args) else None) for i, a in enumerate(schema.arguments)
    }
    for_alias = {
        frozenset(a.alias_info.before_set): given[a.name]
        for a in schema.arguments
        if a.alias_info is not None and a.alias_info.is_write
    }
    outs = out if isinstance(out, tuple) else (out,)
    back = tuple(
        for_alias.get(frozenset(r.alias_info.before_set), value) if r.alias_info is not None else value
        for r, value in zip(schema.returns, outs, strict=False)
    )
    return (back if isinstance(out, tuple) else back[0]) if schema.returns else out


class _Functions(TorchFunctionMode):
    """What goes another way for meta tensors in C++, done as it is for others."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name, first = getattr(func, "__name__", ""), args[0] if args else None
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        if isinstance(first, OnCard):
            if name == "new_tensor":
                return torch.tensor(*args[1:], **{"dtype": first.dtype, **kwargs}).to(first.place)
            if name == "__setitem__" and not isinstance(args[2], torch.Tensor):
                first[args[1]].fill_(args[2])
                return None
            if name == "where" and len(args) == 3:
                kind = next((t.dtype for t in args[1:] if isinstance(t, torch.Tensor)), None)
                both = (
                    t if isinstance(t, torch.Tensor) else torch.full((), t, dtype=kind, device=first.place)
                    for t in args[1:]
                )
                return func(first, *both)
        return func(*args, **kwargs)


def _attention(
    query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False,
    scale: float | None = None, enable_gqa: bool = False,
) -> Any:  # fmt: skip
    """Attention by its formula. Not through the mode: that is off while a backward pass runs layers again."""
    if not isinstance(query, OnCard):
        return _sdpa(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
    if enable_gqa:
        key, value = (t.repeat_interleave(query.shape[1] // t.shape[1], dim=1) for t in (key, value))
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, float("-inf"))
    elif attn_mask is not None:
        scores = scores + attn_mask
    return torch.dropout(torch.softmax(scores, -1), dropout_p, dropout_p > 0) @ value


class _PretendedGenerator(_Generator):
    """``torch.Generator("cuda")``: draws on the CPU, belongs to a GPU."""

    machine: Machine
    place = torch.device("cpu")

    def __new__(cls, device: Any = "cpu") -> _PretendedGenerator:
        self: _PretendedGenerator = _Generator.__new__(cls, "cpu")
        self.place = cls.machine.device(device)
        if self.place.type == "cuda":
            cls.machine.generators[self._cdata] = self
        return self

    device = property(lambda self: self.place)  # type: ignore[assignment]


@contextmanager
def pretended(count: int = 1) -> Iterator[Machine]:
    """Inside, this machine has ``count`` GPUs."""
    machine = Machine(count)

    def index(device: Any = None) -> int:
        machine.start()
        return int(machine.device("cuda" if device is None else device).index)

    def started(answer: Any) -> Any:
        return lambda *_, **__: (machine.start(), answer)[1]

    class Guard:
        def __init__(self, device: Any) -> None:
            self.index = index(device)

        def __enter__(self) -> None:
            self.before, machine.current = machine.current, self.index

        def __exit__(self, *_: object) -> None:
            machine.current = self.before

    card = SimpleNamespace(
        name="Pretended", total_memory=80 << 30, major=9, minor=0, multi_processor_count=132
    )
    cuda: dict[str, Any] = {
        "is_available": lambda: True,
        "device_count": lambda: count,
        "_lazy_init": started(None),
        "is_initialized": lambda: machine.started is not None,
        "current_device": lambda: index(),
        "set_device": lambda device: setattr(machine, "current", index(device)),
        "device": Guard,
        "get_rng_state": lambda *_: (machine.start(), torch.get_rng_state())[1],
        "set_rng_state": started(None),
        "manual_seed": lambda seed: None,
        "manual_seed_all": lambda seed: None,
        "get_device_name": lambda device=None: f"Pretended GPU {index(device)}",
        "get_device_properties": started(card),
        "get_device_capability": started((9, 0)),
        "max_memory_allocated": lambda device=None: 1000 + index(device),
        "max_memory_reserved": lambda device=None: 2000 + index(device),
        "reset_peak_memory_stats": lambda device=None: index(device),
        "mem_get_info": started((70 << 30, 80 << 30)),
        "synchronize": started(None),
        "empty_cache": lambda: None,
        "is_bf16_supported": lambda *_, **__: True,
        "_is_in_bad_fork": lambda: False,
    }
    generator = type("Generator", (_PretendedGenerator,), {"machine": machine})
    names = ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check")
    asks = next(name for name in names if hasattr(torch.optim.Optimizer, name))
    changes: list[tuple[Any, str, Any]] = [
        *((torch.cuda, name, value) for name, value in cuda.items()),
        (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
        (torch.accelerator, "current_accelerator", lambda *_, **__: torch.device("cuda")),
        (torch.optim.Optimizer, asks, started(None)),
        (torch, "Generator", generator),
        (torch.nn.functional, "scaled_dot_product_attention", _attention),
    ]
    before = [(thing, name, getattr(thing, name)) for thing, name, _ in changes]
    environment, strict = dict(os.environ), torch.are_deterministic_algorithms_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory
    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
    try:
        for thing, name, value in changes:
            setattr(thing, name, value)
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        with _Functions(), _Operations(machine):
            yield machine
    finally:
        for thing, name, value in before:
            setattr(thing, name, value)
        torch.__future__.set_overwrite_module_params_on_conversion(overwrite)
        torch.use_deterministic_algorithms(strict)
        torch.utils.deterministic.fill_uninitialized_memory = filled
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)


def why_not() -> str | None:
    """Why there can be no pretended GPU here; None if there can."""
    if not hasattr(torch.Tensor, "_make_subclass"):
        return "torch.Tensor._make_subclass is gone"
    try:
        with pretended() as machine:
            made = torch.ones(2, device="cuda") + 1
            return (
                None
                if isinstance(made, OnCard) and made.tolist() == [2, 2] and machine.started
                else "no card"
            )
    except (TypeError, AttributeError) as error:
        return f"PyTorch {torch.__version__} has changed: {error}"
