"""Accelerators: on which devices a fit runs. What was asked for is what runs, or an error says why not.

Lightning 2.6 knows no NPUs: by itself it would put a fit that asks for one on the CPU, build its
autocast for CUDA and open a CUDA stream for its DDP. The classes here set that right.
"""

import importlib
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.accelerators import Accelerator, AcceleratorRegistry
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, Strategy

from matinee.errors import MatineeError

CHOICES = {  # what may be asked for: which of Lightning's accelerators it can be, the best first
    "auto": ("npu", "cuda", "mps", "cpu"),
    "cpu": ("cpu",),
    "gpu": ("cuda", "mps"),
    "npu": ("npu",),
}


def load_npu() -> str | None:
    """Load torch_npu, if it is installed.

    Returns:
        Why no NPU can be used, None if one can.

    Raises:
        MatineeError: If torch_npu is installed but cannot be loaded.
    """
    try:
        importlib.import_module("torch_npu")
    except ModuleNotFoundError as error:
        if error.name == "torch_npu":
            return "torch_npu is not installed (pip install 'matinee[npu]')"
        raise MatineeError(_broken(error)) from error
    except (ImportError, OSError, RuntimeError) as error:  # it looks for CANN's libraries
        raise MatineeError(_broken(error)) from error
    if not torch.npu.is_available():  # type: ignore[attr-defined]
        return "torch_npu sees no NPU (look at npu-smi info and ASCEND_RT_VISIBLE_DEVICES)"
    return None


def _broken(error: Exception) -> str:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return (
        f"torch_npu is installed but cannot be loaded ({reason}); source CANN's set_env.sh, install the "
        "torch_npu of this PyTorch, or choose trainer=cpu."
    )


class NPUAccelerator(Accelerator):
    """Huawei Ascend NPUs, reached through torch_npu as the device ``npu``."""

    def setup_device(self, device: torch.device) -> None:
        """Make ``device`` the current one.

        Raises:
            ValueError: If it is no NPU.
        """
        if device.type != "npu":
            raise ValueError(f"the device should be an NPU and is {device}.")
        torch.npu.set_device(device)  # type: ignore[attr-defined]

    def teardown(self) -> None:
        """Give memory back that is only cached."""
        torch.npu.empty_cache()  # type: ignore[attr-defined]

    def get_device_stats(self, device: Any) -> dict[str, Any]:
        """Return the memory statistics of a device, in bytes and counts, as for CUDA."""
        stats: dict[str, Any] = torch.npu.memory_stats(device)  # type: ignore[attr-defined]
        return stats

    @staticmethod
    def parse_devices(devices: int | str | list[int]) -> list[int]:
        """Return the numbers of the devices that ``trainer.devices`` means.

        Args:
            devices: How many, -1 for all, or their numbers as a list or as text with commas.

        Raises:
            MatineeError: If none is meant, or one that is not there.
        """
        count = NPUAccelerator.auto_device_count()
        chosen = devices
        if isinstance(chosen, str):
            chosen = [int(n) for n in chosen.split(",")] if "," in chosen else int(chosen)
        if isinstance(chosen, int):
            chosen = list(range(count if chosen == -1 else chosen))
        if not chosen or not set(chosen) <= set(range(count)):
            raise MatineeError(f"trainer.devices is {devices}, and there are {count} NPUs.")
        return chosen

    @staticmethod
    def get_parallel_devices(devices: list[int]) -> list[torch.device]:
        """Return the devices of these numbers."""
        return [torch.device("npu", index) for index in devices]

    @staticmethod
    def auto_device_count() -> int:
        """Return how many NPUs there are."""
        count: int = torch.npu.device_count()  # type: ignore[attr-defined]
        return count

    @staticmethod
    def is_available() -> bool:
        """Tell whether an NPU can be used."""
        return load_npu() is None

    @staticmethod
    def name() -> str:
        """Return the type of its devices."""
        return "npu"


AcceleratorRegistry.register("npu", NPUAccelerator, description="Huawei Ascend NPUs", override=True)


class DataParallel(DDPStrategy):
    """DDP that also takes NPUs."""

    def determine_ddp_device_ids(self) -> list[int] | None:
        """Return the device for CUDA alone: DDP would open a CUDA stream for any that is named."""
        return super().determine_ddp_device_ids() if self.root_device.type == "cuda" else None


class MixedTraining(MixedPrecision):
    """16 bits where a step trains, float32 where a model is measured.

    A score of bfloat16 has three digits: many items of a catalogue would tie, and a run measured
    again in float32 would have other figures.
    """

    @contextmanager
    def val_step_context(self) -> Generator[None, None, None]:
        """Leave float32 as it is."""
        yield

    test_step_context = predict_step_context = val_step_context


def hardware(
    accelerator: str = "auto",
    devices: Any = 1,
    num_nodes: int = 1,
    precision: Any = "32-true",
    strategy: str | Strategy = "auto",
) -> dict[str, Any]:
    """Turn what a config asks for into what Lightning's Trainer has to be given.

    Args:
        accelerator: One of :data:`CHOICES`.
        devices: How many, -1 or ``auto`` for all, or their numbers.
        num_nodes: Number of machines.
        precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``.
        strategy: ``auto``, or a strategy of Lightning to be used instead.

    Raises:
        MatineeError: If an option is unknown or the accelerator cannot be had.
    """
    name = _available(accelerator)
    found = _devices(name, devices)
    chosen: dict[str, Any] = {"accelerator": name, "strategy": strategy, "plugins": []}
    if strategy == "auto" and (num_nodes > 1 or len(found) > 1):
        backend = "hccl" if name == "npu" else None  # None takes PyTorch's choice for the device
        chosen["strategy"] = DataParallel(process_group_backend=backend)
    elif strategy == "auto" and name == "npu":
        chosen["strategy"] = SingleDeviceStrategy(found[0])
    if precision not in ("32-true", "bf16-mixed", "16-mixed"):
        raise MatineeError(
            f"trainer.precision is {precision}; choose 32-true, bf16-mixed or 16-mixed."
        )
    if precision != "32-true":
        chosen["precision"] = None
        chosen["plugins"] = [MixedTraining(precision, found[0].type)]
    return chosen


def _available(accelerator: str) -> str:
    if accelerator not in CHOICES:
        raise MatineeError(f"trainer.accelerator is {accelerator!r}; choose {', '.join(CHOICES)}.")
    for name in CHOICES[accelerator]:
        if AcceleratorRegistry[name]["accelerator"].is_available():
            return name
    reason = load_npu() if accelerator == "npu" else "PyTorch sees no GPU here"
    raise MatineeError(f"trainer.accelerator is {accelerator}, but {reason}; choose trainer=cpu.")


def _devices(name: str, devices: Any) -> list[torch.device]:
    accelerator = AcceleratorRegistry[name]["accelerator"]
    wanted = accelerator.auto_device_count() if devices == "auto" else devices
    found: list[torch.device] = accelerator.get_parallel_devices(accelerator.parse_devices(wanted))
    return found
