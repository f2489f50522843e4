"""A stand-in for torch_npu: a device ``npu`` whose tensors are computed on the host.

Importing it turns PyTorch's PrivateUse1 key, which torch_npu occupies, into that device for the
rest of the process. It shows that the code around the kernels runs; it says nothing about kernels.
"""

import sys
import types
from typing import Any

import torch
from torch.utils import backend_registration
from torch.utils._pytree import tree_map


class NPU(backend_registration._DummyBackendModule):
    """What is used of ``torch.npu``."""

    def __init__(self) -> None:
        self.seeds: list[int] = []
        self.current: list[torch.device] = []

    def set_device(self, device: torch.device) -> None:
        self.current.append(device)

    def manual_seed(self, seed: int) -> None:
        self.seeds.append(seed)

    def empty_cache(self) -> None:
        pass

    def memory_stats(self, device: Any) -> dict[str, int]:
        return {"allocated_bytes.all.current": 4}

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


backend_registration._setup_privateuseone_for_python_backend("npu", NPU())
sys.modules["torch_npu"] = types.ModuleType("torch_npu")


raw: dict[int, torch.Tensor] = {}  # the values of each storage, which copies of a tensor share


def on_host(value: Any) -> Any:
    if not (isinstance(value, torch.Tensor) and value.device.type == "npu"):
        return value
    values = raw[value.untyped_storage()._cdata]
    if value.shape == values.shape and value.is_contiguous():
        return values
    return values.reshape(-1).as_strided(
        value.shape, value.stride(), value.storage_offset()
    )  # a view


def on_device(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    tensor = torch._C._acc.create_empty_tensor(value.shape, value.dtype)
    raw[tensor.untyped_storage()._cdata] = value
    return tensor


def compute(op: Any, *args: Any, **kwargs: Any) -> Any:
    """Compute any operator on the host; what it writes in place is written there."""
    if kwargs.get("device") is not None:
        kwargs["device"] = "cpu"
    used.add(str(op))
    result = op(*tree_map(on_host, args), **tree_map(on_host, kwargs))
    given = (
        dict(zip((argument.name for argument in op._schema.arguments), args, strict=False)) | kwargs
    )
    written = [
        given[argument.name]
        for argument in op._schema.arguments
        if argument.alias_info is not None
        and argument.alias_info.is_write
        and argument.name in given
    ]
    if len(written) == 1 and isinstance(result, torch.Tensor):
        if written[0].shape != result.shape:  # resized
            written[0].data = on_device(result)
        return written[0]
    return tree_map(on_device, result)


def copy_from(source: Any, target: Any, non_blocking: bool = False) -> Any:
    on_host(target).copy_(on_host(source))
    return target


used: set[str] = set()
everything = torch.library.Library("_", "IMPL")
everything.fallback(compute, "PrivateUse1")
aten = torch.library.Library("aten", "IMPL")
aten.impl("_copy_from", copy_from, "PrivateUse1")
everything.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
