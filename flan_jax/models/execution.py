"""How a training step is executed: choices beside the network's sizes, because they change no result.

They are no part of `T5Config`, so that a run may go on, and a checkpoint be read, under other choices than it began with.
Nothing here knows JAX; `models.layer_loop` and `models.readout` do what is chosen here.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from flan_jax.errors import UserError
from flan_jax.models import attention_choice
from flan_jax.models.attention_choice import ATTENTION_NAMES
from flan_jax.models.config import T5Config
from flan_jax.names import nearest

LAYERS_NAMES = ("auto", "scanned", "unrolled")
REMAT_NAMES = ("none", "minimal", "full", "offload")
LOGITS_NAMES = ("auto", "whole", "chunked")
HOST_MEMORY_PLATFORMS = ("gpu", "tpu")  # have a device memory of their own, and pinned host memory beside it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Execution:
    """How a training step trades arithmetic, memory and compile time for each other.

    Args:
        layers: "unrolled" compiles every layer; "scanned" one for all, in a loop over their stacked parameters: a program
            of the size of one layer, for a copy of the parameters in the compute type. "auto" goes by platform and size.
        remat: what the backward pass finds of a layer's forward pass. "none": all it needs. "minimal": the outputs of
            matrix products without batch dimensions, as T5X's; the rest (attention, norms, activations) is computed
            again. "full": the layer's input alone. "offload": as "minimal", waiting in the host's memory. XLA on CPU
            computes again too early for the step's peak to fall: less is handed to the backward pass, but not held less.
        attention: "xla" materialises scores, "cudnn" is NVIDIA's fused attention, "pallas" our own kernel
            (`attention_choice`, which also says what "auto" is). Decoding and evaluation always use "xla".
        logits: "whole" makes the float32 logits of a batch at once; "chunked" reads them a piece of the vocabulary at
            a time, forward and again backward; "auto" is "chunked" where the logits of one device exceed `whole_bytes`.
        whole_bytes: for "auto".
        chunk_bytes: about what a piece's logits take on one device.

    Raises:
        UserError: a name that does not exist, a size that is not positive.
    """

    layers: str = "auto"
    remat: str = "none"
    attention: str = "auto"
    logits: str = "auto"
    whole_bytes: int = 256 << 20
    chunk_bytes: int = 32 << 20

    def __post_init__(self):
        allowed_names = (LAYERS_NAMES, REMAT_NAMES, ATTENTION_NAMES, LOGITS_NAMES)
        for field, allowed in zip(("layers", "remat", "attention", "logits"), allowed_names, strict=True):
            value = getattr(self, field)
            if value not in allowed:
                raise UserError(
                    f"Execution.{field} is {value!r}; allowed are {', '.join(allowed)}.{nearest(str(value), allowed)}"
                )
        for field in ("whole_bytes", "chunk_bytes"):
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UserError(f"Execution.{field} is {value!r}; it must be a positive integer.")

    def require_platform(self, platform: str) -> None:
        """Refuses what a platform cannot do.

        Args:
            platform: as `jax.Device.platform` says it: "cpu", "gpu", "tpu".

        Raises:
            UserError: offloading where there is no host memory apart from the device's.
        """
        if self.remat == "offload" and platform not in HOST_MEMORY_PLATFORMS:
            raise UserError(
                f"Execution.remat is 'offload', which keeps activations in the host's pinned memory, but the platform is "
                f"{platform!r}, whose arrays lie in the host's memory already: nothing would be saved. Offloading works "
                f"on {' and '.join(HOST_MEMORY_PLATFORMS)}; use 'full' or 'minimal' here."
            )

    def chunks_logits(self, logits_bytes: int, *, is_cut: bool) -> bool:
        """Whether logits that would take so much of one device are read in pieces.

        Args:
            logits_bytes: of the float32 logits on one device.
            is_cut: whether each row of the table is spread over devices.
        """
        return self.logits == "chunked" or (self.logits == "auto" and (is_cut or logits_bytes > self.whole_bytes))


def settled(
    execution: Execution, *, platform: str, device_kind: str, config: T5Config, lengths: Sequence[int] | None
) -> tuple[Execution, tuple[str, ...]]:
    """Returns the choices with "auto" made concrete where platform and size decide, and what was picked in words.

    Args:
        execution: what was asked for.
        platform: as `jax.Device.platform` says it.
        device_kind: as `jax.Device.device_kind` says it.
        config: the network's sizes.
        lengths: of the encoder's and the decoder's rows; None where they are not known.

    Raises:
        UserError: the platform cannot do what is asked for.
    """
    execution.require_platform(platform)
    where: dict[str, Any] = {"platform": platform, "device_kind": device_kind}
    where |= {"lengths": lengths, "head_dim": config.head_dim, "dtype": config.dtype}
    attention_choice.require(execution.attention, **where)
    said = []
    if execution.layers == "auto":
        layers, why = _layers(platform, config)
        execution = dataclasses.replace(execution, layers=layers)
        said.append(f"layers {layers}: {why}")
    if execution.attention == "auto":
        attention, why = attention_choice.choose(**where)
        execution = dataclasses.replace(execution, attention=attention)
        said.append(f"attention {attention}: {why}")
    return execution, tuple(said)


def _layers(platform: str, config: T5Config) -> tuple[str, str]:
    """How layers are gone through, and why."""
    most = max(config.num_encoder_layers, config.num_decoder_layers)
    if platform == "cpu":
        return "unrolled", "a loop costs a CPU a third of the step"
    if (platform == "tpu" and most >= 8) or (most >= 24 and config.emb_dim >= 2048):
        return "scanned", f"{most} layers of width {config.emb_dim} take {platform} minutes to compile one by one"
    return "unrolled", f"{most} layers of width {config.emb_dim} on {platform} compile soon, and are faster one by one"
