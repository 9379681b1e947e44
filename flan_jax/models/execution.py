"""How a training step is executed: options that change speed and memory, and no result.

They are not part of `T5Config`, so that a run can be resumed, and a checkpoint read, with other options than it started
with. Independent of JAX; `models.acceleration` implements what is chosen here.
"""

import dataclasses
from collections.abc import Sequence

from flan_jax.annotations import PositiveInt, check_fields
from flan_jax.errors import UserError
from flan_jax.models.acceleration import attention_choice
from flan_jax.models.acceleration.attention_choice import ATTENTION_NAMES, Accelerator
from flan_jax.models.t5.config import T5Config
from flan_jax.names import require_choice

LAYERS_NAMES = ("auto", "scanned", "unrolled")
REMAT_NAMES = ("none", "minimal", "full", "offload")
LOGITS_NAMES = ("auto", "whole", "chunked")
# Complete logits compute one product less, a seventh (tied: a quarter) of the loss's time on a CPU
# (docs/performance.md); above this size memory counts more.
LARGEST_WHOLE_LOGITS_BYTES = 256 << 20
_HOST_MEMORY_PLATFORMS = ("gpu", "tpu")  # Their devices have a memory of their own, and pinned host memory.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Execution:
    """How a training step trades arithmetic, memory and compile time for each other.

    Attributes:
      layers: "unrolled" compiles every layer. "scanned" compiles one and loops over the stacked parameters: a program
        of the size of one layer, for a copy of the parameters in the compute type. "auto" depends on platform and size.
      remat: The parts of each layer that the forward pass saves for the backward pass. "none": all that it needs.
        "minimal": the outputs of matrix products without batch dimensions, as T5X; the rest (attention, norms,
        activations) is computed again. "full": the layer's input only. "offload": as "minimal", in the host's memory.
        XLA on CPU computes again too early for the peak memory of a step to fall much.
      attention: "xla" materializes the scores, "cudnn" is NVIDIA's fused attention, "pallas" the kernel of this
        package; `models.acceleration.attention_choice` resolves "auto". Decoding and evaluation always use "xla".
      logits: "whole" computes the float32 logits of a batch at once; "chunked" computes them in chunks of the
        vocabulary, forward and again backward. "auto" is "chunked" where the logits of one device exceed 256 MiB.
      chunk_bytes: Approximate size of a chunk of logits on one device.

    Raises:
      UserError: A name that does not exist, a size that is not positive.
    """

    layers: str = "auto"
    remat: str = "none"
    attention: str = "auto"
    logits: str = "auto"
    chunk_bytes: PositiveInt = 32 << 20

    def __post_init__(self) -> None:
        allowed_names = (LAYERS_NAMES, REMAT_NAMES, ATTENTION_NAMES, LOGITS_NAMES)
        for field, allowed in zip(("layers", "remat", "attention", "logits"), allowed_names, strict=True):
            require_choice(getattr(self, field), allowed, f"Execution.{field}")
        check_fields(self)

    def chunks_logits(self, logits_bytes: int, *, table_is_sharded: bool) -> bool:
        """Returns whether logits are computed in chunks.

        Args:
          logits_bytes: Size of the float32 logits on one device.
          table_is_sharded: Whether each row of the table is sharded over devices.
        """
        is_large = table_is_sharded or logits_bytes > LARGEST_WHOLE_LOGITS_BYTES
        return self.logits == "chunked" or (self.logits == "auto" and is_large)


def resolve(
    execution: Execution, *, accelerator: Accelerator, config: T5Config, lengths: Sequence[int] | None
) -> tuple[Execution, tuple[str, ...]]:
    """Returns the options with "auto" replaced where platform and size decide, and a line for each replacement.

    Args:
      execution: The requested options.
      accelerator: The device that the step runs on.
      config: The network's sizes.
      lengths: Of the encoder's and the decoder's rows; None where they are unknown.

    Raises:
      UserError: The platform cannot do what is requested.
    """
    _require_host_memory(execution.remat, accelerator.platform)
    attention_choice.require(
        execution.attention, accelerator, lengths=lengths, head_dim=config.head_dim, dtype=config.dtype
    )
    reasons = []
    if execution.layers == "auto":
        layers, reason = _choose_layers(accelerator.platform, config)
        execution = dataclasses.replace(execution, layers=layers)
        reasons.append(f"layers {layers}: {reason}")
    if execution.attention == "auto":
        attention, reason = attention_choice.choose(
            accelerator, lengths=lengths, head_dim=config.head_dim, dtype=config.dtype
        )
        execution = dataclasses.replace(execution, attention=attention)
        reasons.append(f"attention {attention}: {reason}")
    return execution, tuple(reasons)


def _require_host_memory(remat: str, platform: str) -> None:
    if remat == "offload" and platform not in _HOST_MEMORY_PLATFORMS:
        raise UserError(
            f"Execution.remat is 'offload', which saves activations in the host's pinned memory, but the platform is "
            f"{platform!r}, whose arrays are in the host's memory already: nothing would be gained. Offloading works "
            "on "
            f"{' and '.join(_HOST_MEMORY_PLATFORMS)}; use 'full' or 'minimal' here."
        )


def _choose_layers(platform: str, config: T5Config) -> tuple[str, str]:
    deepest = max(config.num_encoder_layers, config.num_decoder_layers)
    if platform == "cpu":
        return "unrolled", "on CPU, scanning layers costs about a third of the step time"
    if (platform == "tpu" and deepest >= 8) or (deepest >= 24 and config.emb_dim >= 2048):
        return "scanned", f"unrolled, {deepest} layers of width {config.emb_dim} take minutes to compile on {platform}"
    return "unrolled", f"{deepest} layers of width {config.emb_dim} compile soon on {platform}, and run faster unrolled"
