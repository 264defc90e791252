"""GPUs: those that were promised, those that the driver lists, and what torch can do with them."""

from __future__ import annotations

from contextlib import suppress

from app.cli.checking.findings import Finding, Findings, Situation, counted
from app.core.errors import StartError
from app.core.system import cgroups
from app.serve.processes.gpus import gpu_labels, plan_slots

CPU_ADVICE = "install the torch build for CUDA and a driver for it, or set FORKLIFT_DEVICE=cpu"


def check(situation: Situation) -> Findings:
    """Whether the workers get the devices that the settings and the environment promise."""
    settings, environ = situation.settings, situation.environ
    try:
        slots = plan_slots(settings, environ)
    except StartError as error:
        yield Finding("device", "fault", str(error), CPU_ADVICE)
        return
    labels = gpu_labels(settings, environ)
    if not labels or settings.device == "cpu":
        yield from _check_cpu(situation, len(slots))
        return
    fault = _gpu_fault(len(labels), environ.get("CUDA_VISIBLE_DEVICES"))
    if fault is None:
        yield Finding("device", "ok", f"{counted(len(labels), 'GPU')} for {counted(len(slots), 'worker')}")
    else:
        yield Finding("device", "fault", fault, CPU_ADVICE)


def _check_cpu(situation: Situation, num_workers: int) -> Findings:
    num_cores = cgroups.num_cores()
    if any(plan.settings.dtype == "float16" for plan in situation.settings.plans):
        yield Finding("device", "warning", "float16 is slow on a CPU", "set FORKLIFT_DTYPE=bfloat16 or float32")
    text = f"the CPU, {counted(num_cores, 'core')} for {counted(num_workers, 'worker')}"
    if num_workers > num_cores:
        yield Finding("device", "warning", text, "lower FORKLIFT_WORKERS")
    else:
        yield Finding("device", "ok", text)


def _gpu_fault(num_gpus: int, visible: str | None) -> str | None:
    """Why torch cannot use the GPUs; None where it can."""
    import torch

    source = "the driver lists" if visible is None else f"CUDA_VISIBLE_DEVICES={visible} promises"
    told = f"{source} {counted(num_gpus, 'GPU')}"
    if torch.version.cuda is None:
        return f"{told}, but torch {torch.__version__} is a build for the CPU"
    if (fault := driver_fault(_driver_cuda(), torch.version.cuda)) is not None:
        return fault
    if not torch.cuda.is_available():
        return f"{told}, but torch {torch.__version__} cannot use one"
    return None


def driver_fault(driver: tuple[int, int] | None, torch_cuda: str) -> str | None:
    """A driver runs every CUDA of its own major version and all older ones (CUDA's minor version compatibility)."""
    if driver is None or driver[0] >= int(torch_cuda.partition(".")[0]):
        return None
    return f"the driver supports CUDA {driver[0]}.{driver[1]}, torch is built for CUDA {torch_cuda}"


def _driver_cuda() -> tuple[int, int] | None:
    """The newest CUDA that the driver supports; None without a driver."""
    import pynvml

    with suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        try:
            found = int(pynvml.nvmlSystemGetCudaDriverVersion_v2())
            return found // 1000, found % 1000 // 10
        finally:
            pynvml.nvmlShutdown()
    return None
