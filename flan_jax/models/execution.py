"""What training recomputes instead of keeping: a choice beside the network's sizes, because it changes no result.

It is no part of `T5Config`, so that a run may go on, and a checkpoint be read, under another choice than it began with.
Nothing here knows JAX; `models.rematerialisation` and `models.readout` do what is chosen here.
"""

import dataclasses

from flan_jax.names import nearest

REMAT_NAMES = ("none", "minimal", "full", "offload")
LOGITS_NAMES = ("auto", "whole", "chunked")
HOST_MEMORY_PLATFORMS = ("gpu", "tpu")  # have a device memory of their own, and pinned host memory beside it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Execution:
    """How a training step trades arithmetic for memory.

    Args:
        remat: what the backward pass finds of a layer's forward pass. "none": all it needs. "minimal": the outputs of
            matrix products without batch dimensions, as T5X's; the rest (attention, norms, activations) is computed
            again. "full": the layer's input alone. "offload": as "minimal", waiting in the host's memory. XLA on CPU
            computes again too early for the step's peak to fall: less is handed to the backward pass, but not held less.
        logits: "whole" makes the float32 logits of a batch at once; "chunked" reads them a piece of the vocabulary at
            a time, forward and again backward; "auto" is "chunked" where the logits of one device exceed `whole_bytes`.
        whole_bytes: for "auto".
        chunk_bytes: about what a piece's logits take on one device.

    Raises:
        ValueError: a name that does not exist, a size that is not positive.
    """

    remat: str = "none"
    logits: str = "auto"
    whole_bytes: int = 256 << 20
    chunk_bytes: int = 32 << 20

    def __post_init__(self):
        for field, allowed in (("remat", REMAT_NAMES), ("logits", LOGITS_NAMES)):
            value = getattr(self, field)
            if value not in allowed:
                raise ValueError(
                    f"Execution.{field} is {value!r}; allowed are {', '.join(allowed)}.{nearest(str(value), allowed)}"
                )
        for field in ("whole_bytes", "chunk_bytes"):
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"Execution.{field} is {value!r}; it must be a positive integer.")

    def require_platform(self, platform: str) -> None:
        """Refuses what a platform cannot do.

        Args:
            platform: as `jax.Device.platform` says it: "cpu", "gpu", "tpu".

        Raises:
            ValueError: offloading where there is no host memory apart from the device's.
        """
        if self.remat == "offload" and platform not in HOST_MEMORY_PLATFORMS:
            raise ValueError(
                f"Execution.remat is 'offload', which keeps activations in the host's pinned memory, but the platform is "
                f"{platform!r}, whose arrays lie in the host's memory already: nothing would be saved. Offloading works "
                f"on {' and '.join(HOST_MEMORY_PLATFORMS)}; use 'full' or 'minimal' here."
            )

    def chunks_logits(self, logits_bytes: int) -> bool:
        """Whether logits that would take so much of one device are read in pieces."""
        return self.logits == "chunked" or (self.logits == "auto" and logits_bytes > self.whole_bytes)
