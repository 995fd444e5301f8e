"""Published peaks of GPUs, by number format: for devices that are not at hand, and to check what is measured.

Numbers are NVIDIA's own, dense (its sheets show twice as much "with sparsity" for TF32 and BF16), in 10^12
operations a second, for products that add up in float32. Sources, by NVIDIA: data sheets of V100 (SXM2), T4,
A10, A30, A40, A100, L4, L40S, H100 (SXM, PCIe and NVL), H200 (SXM) and RTX A6000; white papers of the GA102
(RTX 3090, appendix A) and Ada (RTX 4090, appendix A) architectures.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedlora_kit.errors import BadValue, UnknownName

#: what training is taken to reach of a peak, declared and not measured: large products reach two thirds and
#: more, and a step has other work, too
SHARE = 0.4


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU.

    Attributes:
        name: as the command line takes it. known_as: a part of the name that CUDA gives, in lower case.
        fp32, tf32, bf16: peaks, 10^12 operations a second; None where the hardware lacks the format.
    """

    name: str
    known_as: str
    fp32: float
    tf32: float | None = None
    bf16: float | None = None

    def peak(self, precision: str, dtype: str = "fp32") -> float:
        """Operations a second of a run's products, at most.

        Args:
            precision: of the passes (see `training.precision`). dtype: of the frozen weights.

        Raises:
            BadValue: bf16 on a GPU without it.
        """
        if "bf16" in (precision, dtype):
            if self.bf16 is None:
                raise BadValue(f"{self.name} has no bf16", "choose a GPU that has it, or fp32")
            return 1e12 * self.bf16
        return 1e12 * ((self.tf32 if precision == "tf32" else None) or self.fp32)


#: the more particular name first
GPUS: tuple[Gpu, ...] = (
    Gpu("h200", "h200", 67, 494.5, 989.5),
    Gpu("h100-pcie", "h100 pcie", 51, 378, 756),
    Gpu("h100-nvl", "h100 nvl", 60, 417.5, 835.5),
    Gpu("h100", "h100", 67, 494.5, 989.5),
    Gpu("a100", "a100", 19.5, 156, 312),
    Gpu("v100", "v100", 15.7),
    Gpu("l40s", "l40s", 91.6, 183, 362),
    Gpu("l4", "nvidia l4", 30.3, 60, 121),
    Gpu("t4", "tesla t4", 8.1),
    Gpu("a40", "nvidia a40", 37.4, 74.8, 149.7),
    Gpu("a30", "nvidia a30", 10.3, 82, 165),
    Gpu("a10", "nvidia a10", 31.2, 62.5, 125),
    Gpu("rtx-a6000", "rtx a6000", 38.7, 77.4, 154.8),
    Gpu("rtx-4090", "rtx 4090", 82.6, 82.6, 165.2),
    Gpu("rtx-3090", "rtx 3090", 35.6, 35.6, 71.2),
)


def gpu(name: str) -> Gpu:
    """The GPU of a short name.

    Raises:
        UnknownName: not in the table.
    """
    for one in GPUS:
        if one.name == name.strip().lower():
            return one
    raise UnknownName("GPU", name, [one.name for one in GPUS])


def recognised(cuda_name: str) -> Gpu | None:
    """The GPU that CUDA names so, such as "NVIDIA A100-SXM4-80GB"; None where the table lacks it.

    >>> recognised("NVIDIA H100 80GB HBM3").name, recognised("NVIDIA L40"), recognised("NVIDIA A10G")
    ('h100', None, None)
    """
    words = cuda_name.lower()
    for one in GPUS:
        place = words.find(one.known_as)
        after = words[place + len(one.known_as) :][:1]
        if place >= 0 and not after.isalnum():
            return one
    return None
