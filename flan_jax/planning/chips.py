"""Peak numbers of chips, from their makers' pages."""

import dataclasses
from typing import Any, Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """One kind of accelerator, as JAX sees one device.

    Attributes:
      name: The name in topologies.
      title: The name in print.
      platform: "tpu" or "gpu".
      hbm_bytes: The memory of the chip.
      usable_bytes: The part of it that a program can use.
      flops_per_second: The peak for dense bfloat16 matrix products.
      hbm_bytes_per_second: The bandwidth of the memory.
      link_bytes_per_second: Sent inside a slice (TPU: both directions of a ring, along one mesh axis) or node (GPU).
      network_bytes_per_second: Sent between slices (TPU) or nodes (GPU); a chip's share of its host's network.
      host_chips: Chips per host (TPU) or node (GPU).
      source: The page with the figures.
    """

    name: str
    title: str
    platform: Literal["tpu", "gpu"]
    hbm_bytes: int
    usable_bytes: int
    flops_per_second: float
    hbm_bytes_per_second: float
    link_bytes_per_second: float
    network_bytes_per_second: float
    host_chips: int
    source: str


def _chips(platform: Literal["tpu", "gpu"], pages: str, *rows: tuple[Any, ...]) -> list[Chip]:
    """Chips from rows of name, title, GiB (twice), TFLOP/s, GB/s (three times) and chips per host."""
    return [
        Chip(
            name=name,
            title=title,
            platform=platform,
            hbm_bytes=int(memory * 2**30),
            usable_bytes=int(usable * 2**30),
            flops_per_second=peak * 1e12,
            hbm_bytes_per_second=hbm * 1e9,
            link_bytes_per_second=link * 1e9,
            network_bytes_per_second=network * 1e9,
            host_chips=host,
            source=pages + name,
        )
        for name, title, memory, usable, peak, hbm, link, network, host in rows
    ]


# Peak, HBM and links from the source page: two links of a TPU's "interchip interconnect", and half of a GPU's
# bidirectional NVLink figure. A TPU's usable memory is what libtpu 0.0.42 reports when it refuses a program; of the
# memory that CUDA reports, contexts and libraries take about 1 GiB. The network is a host's 200 Gbit/s (v6e: 400) over
# its chips, from the same pages; for GPUs one adapter of 200 (A100) or 400 Gbit/s each, as in NVIDIA's DGX.
TPUS = _chips(
    "tpu",
    "https://cloud.google.com/tpu/docs/",
    ("v4", "TPU v4", 32, 30.75, 275, 1228, 100, 25 / 4, 4),
    ("v5e", "TPU v5e", 16, 15.75, 197, 819, 100, 25 / 8, 8),
    ("v5p", "TPU v5p", 95, 95.74, 459, 2765, 200, 25 / 4, 4),
    ("v6e", "TPU v6e", 32, 31.25, 918, 1638, 200, 50 / 8, 8),
)
GPUS = _chips(
    "gpu",
    "https://www.nvidia.com/en-us/data-center/",
    ("a100", "NVIDIA A100 80 GB (SXM)", 79.1, 78, 312, 2039, 300, 25, 8),
    ("h100", "NVIDIA H100 80 GB (SXM)", 79.1, 78, 989, 3350, 450, 50, 8),
    ("h200", "NVIDIA H200 141 GB (SXM)", 139.8, 138.5, 989, 4800, 450, 50, 8),
)
CHIPS = {chip.name: chip for chip in (*TPUS, *GPUS)}
