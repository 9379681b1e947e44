"""Which implementation of attention a training step uses, and the conditions of each. Independent of JAX.

"xla": plain operations with materialized scores; mask [B, 1, T, S] and bias [1, H, T, S]. Works everywhere.
"cudnn": cuDNN's fused attention, for NVIDIA GPUs; mask and bias become one array [B, H, T, S].
"pallas": the kernel of `attention_kernel`, for NVIDIA GPUs, without any array of [T, S].
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from flan_jax.errors import UserError

ATTENTION_NAMES = ("auto", "xla", "cudnn", "pallas")
_HALF_TYPES = ("bfloat16", "float16")
_KERNEL_TYPES = (*_HALF_TYPES, "float32")
_AMPERE, _HOPPER = 8.0, 9.0


class Accelerator(NamedTuple):
    """The properties of a `jax.Device` that the choice depends on.

    Attributes:
      platform: "cpu", "gpu" or "tpu".
      kind: For messages: "NVIDIA H200".
      capability: NVIDIA's compute capability, 9.0 for Hopper; 0 for everything that is not an NVIDIA GPU.
    """

    platform: str
    kind: str
    capability: float = 0.0

    @classmethod
    def of(cls, device: Any) -> "Accelerator":
        """Returns the description of a `jax.Device`, which may be one that is only compiled for."""
        text = getattr(device, "compute_capability", "")
        # AMD's GPUs have the platform "gpu" too, and names such as "gfx942" for their capability.
        is_number = text.replace(".", "", 1).isdigit()
        return cls(platform=device.platform, kind=device.device_kind, capability=float(text) if is_number else 0.0)


def choose(accelerator: Accelerator, *, lengths: Sequence[int] | None, head_dim: int, dtype: str) -> tuple[str, str]:
    """Returns the implementation that "auto" means, and the reason, as a clause.

    "pallas" is used only by name until it has been timed on a GPU: its programs are compiled and its results tested
    without one, which shows nothing about its speed.

    Args:
      accelerator: The device that the step runs on.
      lengths: Of the encoder's and the decoder's rows; None where they are unknown.
      head_dim: The size of a head.
      dtype: The compute type.

    >>> choose(Accelerator("cpu", "cpu"), lengths=(512, 128), head_dim=64, dtype="float32")
    ('xla', 'the implementation of every platform except NVIDIA GPUs')
    >>> h200 = Accelerator("gpu", "NVIDIA H200", 9.0)
    >>> choose(h200, lengths=(1024, 256), head_dim=64, dtype="bfloat16")[0]
    'cudnn'
    >>> choose(h200, lengths=(1024, 192), head_dim=64, dtype="bfloat16")
    ('xla', 'not cudnn, because its rows must be multiples of 128 long, and one is 192')
    """
    if accelerator.platform != "gpu":
        return "xla", "the implementation of every platform except NVIDIA GPUs"
    if accelerator.capability < _AMPERE:
        return "xla", f"not cudnn, because {accelerator.kind!r} is not an NVIDIA GPU of Ampere or later"
    # "auto" must not choose what may fail later; `require` trusts a request by name instead.
    if lengths is None:
        return "xla", "not cudnn, because the lengths of the rows are unknown"
    obstacle = _cudnn_obstacle(accelerator, lengths=lengths, head_dim=head_dim, dtype=dtype)
    if obstacle:
        return "xla", f"not cudnn, because {obstacle}"
    rows = " and ".join(map(str, lengths))
    return "cudnn", f"fused, {dtype} heads of {head_dim}, rows of {rows} on {accelerator.kind}"


def require(name: str, accelerator: Accelerator, *, lengths: Sequence[int] | None, head_dim: int, dtype: str) -> None:
    """Refuses an implementation that was requested by name and cannot work; arguments as for `choose`.

    Raises:
      UserError: With the condition that fails, and a fix.
    """
    if name in ("auto", "xla"):
        return
    if accelerator.platform != "gpu" or not accelerator.capability:
        interpreted = " Without a GPU the kernel can only be interpreted, for tests." if name == "pallas" else ""
        raise UserError(
            f"Execution.attention is {name!r}, which runs on NVIDIA GPUs, but the platform is {accelerator.platform!r} "
            f"({accelerator.kind}).{interpreted} Use 'auto' or 'xla' here."
        )
    obstacle: str | None
    if accelerator.capability < _AMPERE:
        obstacle = f"it needs an NVIDIA GPU of Ampere or later, and this is {accelerator.kind!r}"
    elif name == "cudnn":
        # Unknown lengths are no obstacle here: the user asked for it by name.
        obstacle = _cudnn_obstacle(accelerator, lengths=lengths or (), head_dim=head_dim, dtype=dtype)
    else:
        obstacle = _pallas_obstacle(head_dim=head_dim, dtype=dtype)
    if obstacle:
        raise UserError(f"Execution.attention is {name!r}, but {obstacle}. Or use 'auto' or 'xla'.")


def _cudnn_obstacle(accelerator: Accelerator, *, lengths: Sequence[int], head_dim: int, dtype: str) -> str | None:
    """Returns the first condition that fails, as a clause; None where all hold."""
    if dtype not in _HALF_TYPES:
        return f"it computes in {' or '.join(_HALF_TYPES)}, and T5Config.dtype is {dtype!r}"
    # Its query gradient is NaN on H100 and H200 with a bias and rows of 64 mod 128 positions (pytorch#196678).
    uneven = [length for length in lengths if length % 128]
    if uneven:
        return f"its rows must be multiples of 128 long, and one is {uneven[0]}"
    # The limits that JAX checks before it calls cuDNN, so that the message is ours.
    most = 256 if accelerator.capability >= _HOPPER else 128
    if head_dim % 8 or head_dim > most:
        return (
            f"its heads must be multiples of 8 up to {most} on {accelerator.kind}, and T5Config.head_dim is {head_dim}"
        )
    return None


def _pallas_obstacle(*, head_dim: int, dtype: str) -> str | None:
    """As `_cudnn_obstacle`."""
    if dtype not in _KERNEL_TYPES:
        return f"it computes in {', '.join(_KERNEL_TYPES)}, and T5Config.dtype is {dtype!r}"
    # Triton's blocks have sides of powers of 2, and its products need at least 16.
    if head_dim not in (16, 32, 64, 128):
        return f"its heads must be 16, 32, 64 or 128 long, and T5Config.head_dim is {head_dim}"
    return None
