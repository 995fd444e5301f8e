"""How fast a run is trained: as measured here, as given, or by a GPU's data sheet."""

from __future__ import annotations

from fedlora_kit.data.tasks import get_task
from fedlora_kit.experiments.placing import wanted_device
from fedlora_kit.experiments.spec import RunSpec
from fedlora_kit.planning.architectures import architecture
from fedlora_kit.planning.gpus import SHARE
from fedlora_kit.planning.gpus import gpu as known_gpu
from fedlora_kit.planning.rate import Rate, given_rate, measured_rate, published_rate
from fedlora_kit.study.plan import RateOf


def rates(tflops: float | None, device: str, gpu: str | None = None, share: float = SHARE) -> RateOf:
    """The speed for a run: as given, by a GPU's data sheet, or measured once for each shape and format."""
    if tflops is not None:
        fixed = given_rate(tflops)
        return lambda spec: fixed
    if gpu is not None:
        sheet = known_gpu(gpu)
        published_rate(sheet, share=share)  # a share that cannot be is refused before anything is planned
        return lambda spec: published_rate(sheet, spec.precision, spec.model.dtype, share)

    def measured(spec: RunSpec) -> Rate:
        kind = get_task(spec.data.task)
        labels = 0 if kind.modality == "causal" else kind.num_labels
        shape = architecture(spec.model.backbone, kind.modality, spec.data.image_size)
        where = wanted_device(spec, device)
        return measured_rate(shape, labels, where, precision=spec.precision, dtype=spec.model.dtype)

    return measured
