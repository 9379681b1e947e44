"""Which implementation of attention a training step uses: a rule, and what each of them needs. Knows no JAX.

"xla": mask and bias [1, H, T, S] added to materialised scores, with a gradient of our own; everywhere, always right.
"cudnn": cuDNN's fused attention, of NVIDIA GPUs. Mask and bias are one array [B, H, T, S] for it.
"pallas": the kernel of `attention_kernel`, without any array of [T, S].
"""

import re
from collections.abc import Sequence

from flan_jax.errors import UserError

ATTENTION_NAMES = ("auto", "xla", "cudnn", "pallas")
HALF_TYPES = ("bfloat16", "float16")
_TYPES = (*HALF_TYPES, "float32")
# As `jax.Device.device_kind` names them: "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-40GB", "NVIDIA GeForce RTX 4090".
_HOPPER_OR_LATER = re.compile(r"\b(G?H[128]00|H20|G?B[123]00|RTX PRO [2-6]\d00|RTX 50[5-9]0)\b")
_AMPERE = re.compile(
    r"\b(A100|A800|A30|A40|A10G?|A16|A2|L4|L40S?|L20|RTX A[2-6]000|RTX [2-6]000 Ada|RTX [34]0[5-9]0)\b"
)
_OLDER = re.compile(r"\b(V100|T4|P100|P40|P4|K80|M60|TITAN|GTX|RTX 20[6-8]0|Quadro)\b", re.IGNORECASE)
_NOT_NVIDIA = re.compile(r"\b(AMD|Radeon|Instinct|MI[23]\d\d\w*|Intel)\b", re.IGNORECASE)


def choose(
    *, platform: str, device_kind: str, lengths: Sequence[int] | None, head_dim: int, dtype: str
) -> tuple[str, str]:
    """Returns the implementation that "auto" stands for, and why, as a clause.

    "pallas" is taken by name alone until it has been measured on a GPU: its programs are compiled and its results tested
    without one, which says nothing of its speed.

    Args:
        platform: as `jax.Device.platform` says it: "cpu", "gpu", "tpu".
        device_kind: as `jax.Device.device_kind` says it.
        lengths: of the encoder's and the decoder's rows; None where they are not known.
        head_dim: the size of a head.
        dtype: what matrices are computed in.

    >>> choose(platform="cpu", device_kind="cpu", lengths=(512, 128), head_dim=64, dtype="float32")
    ('xla', 'the implementation of every platform but NVIDIA GPUs')
    >>> choose(platform="gpu", device_kind="NVIDIA H200", lengths=(1024, 256), head_dim=64, dtype="bfloat16")[0]
    'cudnn'
    >>> choose(platform="gpu", device_kind="NVIDIA H200", lengths=(1024, 192), head_dim=64, dtype="bfloat16")
    ('xla', 'not cudnn, because its rows must be multiples of 128 long, and one is 192')
    """
    if platform != "gpu":
        return "xla", "the implementation of every platform but NVIDIA GPUs"
    if not (_HOPPER_OR_LATER.search(device_kind) or _AMPERE.search(device_kind)):
        return "xla", f"not cudnn, because {device_kind!r} is not known to be an NVIDIA GPU of Ampere or later"
    if lengths is None:
        return "xla", "not cudnn, because the rows' lengths are not known beforehand"
    against = _against_cudnn(device_kind=device_kind, lengths=lengths, head_dim=head_dim, dtype=dtype)
    if against:
        return "xla", f"not cudnn, because {against}"
    return "cudnn", f"fused, {dtype} heads of {head_dim}, rows of {' and '.join(map(str, lengths))} on {device_kind}"


def require(
    name: str, *, platform: str, device_kind: str, lengths: Sequence[int] | None, head_dim: int, dtype: str
) -> None:
    """Refuses an implementation asked for by name that cannot work; arguments as for `choose`.

    Raises:
        UserError: with the condition that fails, and what to do.
    """
    if name in ("auto", "xla"):
        return
    if platform != "gpu" or _NOT_NVIDIA.search(device_kind):
        interpreted = " Off a GPU the kernel can only be interpreted, which is for tests." if name == "pallas" else ""
        raise UserError(
            f"Execution.attention is {name!r}, which runs on NVIDIA GPUs, but the platform is {platform!r} "
            f"({device_kind}).{interpreted} Use 'auto' or 'xla' here."
        )
    against: str | None
    if _OLDER.search(device_kind):
        against = f"it needs an NVIDIA GPU of Ampere or later, and this is {device_kind!r}"
    elif name == "cudnn":
        against = _against_cudnn(device_kind=device_kind, lengths=lengths or (), head_dim=head_dim, dtype=dtype)
    else:
        against = _against_pallas(head_dim=head_dim, dtype=dtype)
    if against:
        raise UserError(f"Execution.attention is {name!r}, but {against}. Or use 'auto' or 'xla'.")


def _against_cudnn(*, device_kind: str, lengths: Sequence[int], head_dim: int, dtype: str) -> str | None:
    """The first condition that fails, as a clause; None where all hold."""
    if dtype not in HALF_TYPES:
        return f"it computes in {' or '.join(HALF_TYPES)}, and T5Config.dtype is {dtype!r}"
    # Its query gradient is NaN on H100 and H200 where a bias is given and a row is 64 mod 128 long (pytorch#196678).
    uneven = [length for length in lengths if length % 128]
    if uneven:
        return f"its rows must be multiples of 128 long, and one is {uneven[0]}"
    most = 256 if _HOPPER_OR_LATER.search(device_kind) else 128
    if head_dim % 8 or head_dim > most:
        return f"its heads must be multiples of 8 up to {most} on {device_kind}, and T5Config.head_dim is {head_dim}"
    return None


def _against_pallas(*, head_dim: int, dtype: str) -> str | None:
    """As `_against_cudnn`."""
    if dtype not in _TYPES:
        return f"it computes in {', '.join(_TYPES)}, and T5Config.dtype is {dtype!r}"
    if head_dim not in (16, 32, 64, 128):
        return f"its heads must be 16, 32, 64 or 128 long, and T5Config.head_dim is {head_dim}"
    return None
