"""Which device a fit runs on. Stand-ins take the place of NPUs: a stub for detection and :mod:`host_npu`."""

import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch.accelerators import CPUAccelerator, CUDAAccelerator
from lightning.pytorch.utilities import rank_zero_only

from matinee.errors import MatineeError
from matinee.experiment.run_folder import read_result
from matinee.experiment.trainer import make_trainer
from matinee.training import devices as accelerators
from matinee.training.devices import NPUAccelerator, hardware, load_npu


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """A torch_npu that sees two NPUs."""
    npu = types.SimpleNamespace(
        is_available=lambda: True,
        device_count=lambda: 2,
        memory_stats=lambda device: {"allocated_bytes.all.current": 4, "device": device},
    )
    monkeypatch.setattr(torch, "npu", npu, raising=False)
    monkeypatch.setitem(sys.modules, "torch_npu", types.ModuleType("torch_npu"))
    return npu


def test_npu_is_found_and_counted(stub: types.SimpleNamespace) -> None:
    assert load_npu() is None and NPUAccelerator.is_available()
    assert NPUAccelerator.auto_device_count() == 2
    assert NPUAccelerator().get_device_stats("npu:1")["device"] == "npu:1"
    stub.is_available = lambda: False
    assert not NPUAccelerator.is_available()
    with pytest.raises(
        MatineeError, match=r"trainer\.accelerator is npu, but torch_npu sees no NPU"
    ):
        hardware("npu")


@pytest.mark.parametrize(
    ("devices", "numbers"),
    [(1, [0]), (2, [0, 1]), (-1, [0, 1]), ("2", [0, 1]), ("0,1", [0, 1]), ([1], [1])],
)
def test_npu_numbers(stub: types.SimpleNamespace, devices: object, numbers: list[int]) -> None:
    assert NPUAccelerator.parse_devices(devices) == numbers


@pytest.mark.parametrize("devices", [3, 0, [], [2], "0,2"])
def test_npus_that_are_not_there(stub: types.SimpleNamespace, devices: object) -> None:
    with pytest.raises(MatineeError, match="there are 2 NPUs"):
        NPUAccelerator.parse_devices(devices)


@pytest.mark.parametrize("accelerator", ["npu", "gpu"])
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_accelerator_is_refused_not_replaced(
    run: Callable[..., Path], tmp_path: Path, accelerator: str
) -> None:
    reason = {"npu": "torch_npu is not installed", "gpu": "PyTorch finds no GPU"}[accelerator]
    sentence = rf"trainer.accelerator is {accelerator}, but {reason}[^;]*; choose trainer=cpu\.$"
    with pytest.raises(MatineeError, match=sentence):
        run(f"trainer={accelerator}", f"trainer.accelerator={accelerator}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("accelerator", ["auto", "npu"])
def test_a_torch_npu_that_cannot_be_loaded_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accelerator: str
) -> None:
    (tmp_path / "torch_npu.py").write_text("raise ImportError('libhccl.so: no such file')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MatineeError, match=r"cannot be loaded \(libhccl.so: no such file\)"):
        hardware(accelerator)


@pytest.mark.parametrize("choice", ["auto", "cpu"])
@pytest.mark.parametrize("devices", [1, 2])
def test_trainer_takes_devices(compose_train, tmp_path: Path, choice: str, devices: int) -> None:
    config = compose_train(f"trainer={choice}", f"trainer.devices={devices}")
    trainer = make_trainer(config, tmp_path)
    assert (trainer.world_size, trainer.strategy.root_device.type) == (devices, "cpu")
    assert isinstance(trainer.strategy, accelerators.DataParallel) == (devices > 1)
    assert make_trainer(config, None).world_size == 1, "measuring takes one"


def test_a_cpu_that_was_asked_for_is_no_reason_to_advise_a_gpu(
    compose_train, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(CUDAAccelerator, "is_available", staticmethod(lambda: True))
    make_trainer(compose_train("trainer=cpu"), None)
    assert not [str(warning.message) for warning in recwarn]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("measures_only", [True, False])
def test_float32_is_not_rounded_to_tf32(
    compose_train,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    measures_only: bool,
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)  # the default of PyTorch
    config = compose_train(f"trainer.precision={precision}")
    make_trainer(config, None if measures_only else tmp_path)
    assert torch.backends.cudnn.allow_tf32 is False
    assert torch.backends.cuda.matmul.allow_tf32 is False


def test_a_device_of_another_kind_than_the_accelerator_is_refused(
    compose_train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CPUAccelerator, "name", lambda self: "npu")
    with pytest.raises(MatineeError, match="would run on cpu instead of npu"):
        make_trainer(compose_train(), None)


def test_processes_that_the_config_does_not_ask_for_are_refused(
    compose_train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")  # as torchrun does
    with pytest.raises(MatineeError, match=r"WORLD_SIZE=3.* the config asks for 2"):
        make_trainer(compose_train("trainer.devices=2"), tmp_path)
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    with pytest.raises(MatineeError, match=r"one of several processes.* the config asks for 1"):
        make_trainer(compose_train(), tmp_path)


def test_half_precision_trains_and_float32_measures(
    run: Callable[..., Path], compose_train
) -> None:
    folder = run("model=ncf", "trainer.precision=bf16-mixed")
    exact = run("model=ncf", folder="exact")
    half, whole = (read_result(path)["metrics"]["test/rmse"] for path in (folder, exact))
    assert half != whole and half == pytest.approx(whole, abs=0.02)
    from matinee.experiment import building, measuring

    loaded = building.load_run(folder)
    loaded.config.trainer.precision = "32-true"
    metrics = measuring.evaluate(loaded, make_trainer(loaded.config, None)).metrics
    assert metrics == read_result(folder)["metrics"]
    with pytest.raises(MatineeError, match=r"trainer.precision is bf16-true"):
        make_trainer(compose_train("trainer.precision=bf16-true"), None)


ON_THE_STAND_IN = """
import signal, sys
from pathlib import Path
import host_npu
import torch
from matinee import cli
from matinee.training.devices import DataParallel, NPUAccelerator, hardware
from matinee.experiment.run_folder import read_result
from matinee.training.tasks import RatingTask

folder, other, *overrides = sys.argv[1:]

def matinee(*arguments, status=0):
    try:
        cli.main(arguments)
    except SystemExit as end:
        assert end.code == status, end.code
    else:
        assert status == 0

seen = {}

def spied(name, stop_at=None):
    step = getattr(RatingTask, name)
    def spy(self, batch, *rest):
        devices = {value.device for value in (*batch, *self.state_dict().values())}
        seen.setdefault(name, set()).add((*map(str, devices), torch.is_autocast_enabled("npu")))
        if name == "training_step" and stopping and self.trainer.global_step == 25:
            stopping.clear()
            signal.raise_signal(signal.SIGTERM)
        return step(self, batch, *rest)
    setattr(RatingTask, name, spy)

stopping = []
for name in ("training_step", "validation_step", "predict_step"):
    spied(name)

overrides += ["trainer=npu", "trainer.accelerator=npu", "+trainer.inference_mode=false", "logger=none"]
overrides += ["trainer.max_epochs=2", "data.batch_size=64"]
matinee("train", *overrides, f"run_folder={folder}")
assert seen == {
    "training_step": {("npu:0", True)},
    "validation_step": {("npu:0", False)},
    "predict_step": {("npu:0", False)},
}, seen
assert torch.npu.current and torch.npu.seeds and len(set(torch.npu.seeds)) == len(torch.npu.seeds)
assert read_result(Path(folder))["environment"]["accelerator"] == "NPUAccelerator"
matinee("evaluate", f"run={folder}", "trainer=npu", "+trainer.inference_mode=false")

stopping.append(True)
matinee("train", *overrides, f"run_folder={other}", status=143)
matinee("train", f"resume={other}")
for name in ("best", "last"):
    ours, theirs = (
        torch.load(f"{path}/checkpoints/{name}.ckpt", weights_only=True)["state_dict"]
        for path in (folder, other)
    )
    assert all(torch.equal(ours[key], theirs[key]) and ours[key].device.type == "cpu" for key in ours)
matinee("train", *overrides, "model=bias", f"run_folder={other}-bias")

torch.npu.device_count = lambda: 2
options = hardware("npu", -1, precision="16-mixed")
strategy = options["strategy"]
strategy.parallel_devices = NPUAccelerator.get_parallel_devices([0, 1])
assert isinstance(strategy, DataParallel) and strategy.process_group_backend == "hccl"
assert strategy.root_device == torch.device("npu:0") and strategy.determine_ddp_device_ids() is None
assert options["plugins"][0].device == "npu" and options["plugins"][0].scaler is not None
assert hardware("auto")["accelerator"] == "npu"
"""


def test_a_fit_on_the_stand_in_trains_stops_resumes_and_evaluates(
    table_overrides: list[str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ON_THE_STAND_IN, str(tmp_path / "run"), str(tmp_path / "other"),
         *table_overrides, "split=random"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(
            [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "identical to the record" in done.stdout
