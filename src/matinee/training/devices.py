"""Devices: run a fit on the requested devices, or raise an error that says why that is not possible.

Lightning 2.6 does not support NPUs: it would run a fit that asks for one on the CPU, build autocast for
CUDA and open a CUDA stream for DDP. The classes here correct that.
"""

import importlib
import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.accelerators import Accelerator, AcceleratorRegistry
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, Strategy

from matinee.errors import MatineeError

MOST = 4  # processes on a CPU core
CHOICES = {  # trainer.accelerator: Lightning's accelerators that it can be, the best first
    "auto": ("npu", "cuda", "mps", "cpu"),
    "cpu": ("cpu",),
    "gpu": ("cuda", "mps"),
    "npu": ("npu",),
}


def load_npu() -> str | None:
    """Load torch_npu, if it is installed.

    Returns:
        The reason why no NPU can be used; None if one can.

    Raises:
        MatineeError: If torch_npu is installed but cannot be loaded.
    """
    try:
        importlib.import_module("torch_npu")
    except ModuleNotFoundError as error:
        if error.name == "torch_npu":
            return "torch_npu is not installed (pip install 'matinee[npu]')"
        raise MatineeError(_broken(error)) from error
    except (ImportError, OSError, RuntimeError) as error:  # CANN's libraries may be missing
        raise MatineeError(_broken(error)) from error
    if not torch.npu.is_available():  # type: ignore[attr-defined]
        return "torch_npu sees no NPU (check npu-smi info and ASCEND_RT_VISIBLE_DEVICES)"
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
        """Make ``device`` the current device.

        Raises:
            ValueError: If it is not an NPU.
        """
        if device.type != "npu":
            raise ValueError(f"device is {device}; give an NPU.")
        torch.npu.set_device(device)  # type: ignore[attr-defined]

    def teardown(self) -> None:
        """Release cached memory."""
        torch.npu.empty_cache()  # type: ignore[attr-defined]

    def get_device_stats(self, device: Any) -> dict[str, Any]:
        """Return the memory statistics of a device, in bytes and counts, as for CUDA."""
        stats: dict[str, Any] = torch.npu.memory_stats(device)  # type: ignore[attr-defined]
        return stats

    @staticmethod
    def parse_devices(devices: int | str | list[int]) -> list[int]:
        """Return the numbers of the devices that ``trainer.devices`` selects.

        Args:
            devices: Number of devices, -1 for all, or their numbers as a list or a string with commas.

        Raises:
            MatineeError: If no device is selected, or one that does not exist.
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
        """Return the devices with these numbers."""
        return [torch.device("npu", index) for index in devices]

    @staticmethod
    def auto_device_count() -> int:
        """Return the number of NPUs."""
        count: int = torch.npu.device_count()  # type: ignore[attr-defined]
        return count

    @staticmethod
    def is_available() -> bool:
        """Return whether an NPU can be used."""
        return load_npu() is None

    @staticmethod
    def name() -> str:
        """Return the type of the devices."""
        return "npu"


AcceleratorRegistry.register("npu", NPUAccelerator, description="Huawei Ascend NPUs", override=True)


class DataParallel(DDPStrategy):
    """Distributed data parallel that also supports NPUs."""

    def determine_ddp_device_ids(self) -> list[int] | None:
        """Return the device for CUDA only: DDP opens a CUDA stream for any device that is given."""
        return super().determine_ddp_device_ids() if self.root_device.type == "cuda" else None


class MixedTraining(MixedPrecision):
    """Mixed precision for training steps, float32 for evaluation.

    A bfloat16 score has three digits: many items of a catalogue would tie, and evaluating the run again
    in float32 would give other metrics.
    """

    @contextmanager
    def val_step_context(self) -> Generator[None, None, None]:
        """Keep float32."""
        yield

    test_step_context = predict_step_context = val_step_context


def hardware(
    accelerator: str = "auto",
    devices: Any = 1,
    num_nodes: int = 1,
    precision: Any = "32-true",
    strategy: str | Strategy = "auto",
) -> dict[str, Any]:
    """Convert the hardware options of a config to arguments of Lightning's Trainer.

    Args:
        accelerator: One of :data:`CHOICES`.
        devices: Number of devices, -1 or ``auto`` for all, or their numbers.
        num_nodes: Number of machines.
        precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``.
        strategy: ``auto``, or a strategy of Lightning to use instead.

    Raises:
        MatineeError: If an option is unknown or the accelerator is not available.
    """
    name = _available(accelerator)
    found = _devices(name, devices)
    chosen: dict[str, Any] = {"accelerator": name, "strategy": strategy, "plugins": []}
    if strategy == "auto" and (num_nodes > 1 or len(found) > 1):
        backend = "hccl" if name == "npu" else None  # None lets PyTorch choose for the device
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
    reason = load_npu() if accelerator == "npu" else "PyTorch finds no GPU"
    raise MatineeError(f"trainer.accelerator is {accelerator}, but {reason}; choose trainer=cpu.")


def _devices(name: str, devices: Any) -> list[torch.device]:
    accelerator = AcceleratorRegistry[name]["accelerator"]
    wanted = accelerator.auto_device_count() if devices == "auto" else devices
    if name == "cpu" and isinstance(wanted, int) and wanted > MOST * (os.cpu_count() or 1):
        raise MatineeError(
            f"trainer.devices is {wanted}, a process each, and this machine has {os.cpu_count()} CPU cores; "
            "give fewer."
        )
    found: list[torch.device] = accelerator.get_parallel_devices(accelerator.parse_devices(wanted))
    return found
