"""The rule behind attention = "auto", and the refusals of an implementation requested by name."""

import types

import pytest

from flan_jax.models.acceleration.attention_choice import Accelerator, choose, require

H200 = Accelerator("gpu", "NVIDIA H200", 9.0)
A100, L4 = Accelerator("gpu", "NVIDIA A100-SXM4-80GB", 8.0), Accelerator("gpu", "NVIDIA L4", 8.9)
V100, T4 = Accelerator("gpu", "Tesla V100-SXM2-16GB", 7.0), Accelerator("gpu", "Tesla T4", 7.5)
MI300X = Accelerator("gpu", "AMD Instinct MI300X")
CPU, TPU = Accelerator("cpu", "cpu"), Accelerator("tpu", "TPU v4")
RUN = {"lengths": (1024, 256), "head_dim": 64, "dtype": "bfloat16"}


@pytest.mark.parametrize(
    ("capability", "expected"), [("9.0", 9.0), ("8.9", 8.9), ("12.0", 12.0), ("gfx942", 0.0), (None, 0.0)]
)
def test_only_nvidia_gpus_have_a_capability(capability, expected):
    attributes = {} if capability is None else {"compute_capability": capability}
    device = types.SimpleNamespace(platform="gpu", device_kind="some", **attributes)
    assert Accelerator.of(device) == Accelerator("gpu", "some", expected)


@pytest.mark.parametrize(
    ("accelerator", "change", "name", "text"),
    [
        (H200, {}, "cudnn", "fused, bfloat16 heads of 64, rows of 1024 and 256 on NVIDIA H200"),
        (A100, {}, "cudnn", "A100"),
        (Accelerator("gpu", "NVIDIA GB200", 10.0), {}, "cudnn", "GB200"),
        (V100, {}, "xla", "'Tesla V100-SXM2-16GB' is not an NVIDIA GPU of Ampere or later"),
        (MI300X, {}, "xla", "not an NVIDIA GPU"),
        (H200, {"lengths": (1024, 64)}, "xla", "multiples of 128 long, and one is 64"),
        (H200, {"lengths": None}, "xla", "lengths of the rows are unknown"),
        (H200, {"dtype": "float32"}, "xla", "computes in bfloat16 or float16, and T5Config.dtype is 'float32'"),
        (H200, {"head_dim": 60}, "xla", "multiples of 8 up to 256 on NVIDIA H200, and T5Config.head_dim is 60"),
        (H200, {"head_dim": 256}, "cudnn", "heads of 256"),
        (L4, {"head_dim": 256}, "xla", "multiples of 8 up to 128 on NVIDIA L4"),
        (CPU, {}, "xla", "every platform except NVIDIA GPUs"),
        (TPU, {}, "xla", "every platform except NVIDIA GPUs"),
    ],
)
def test_auto_is_cudnn_where_all_of_its_conditions_hold_and_gives_the_reason(accelerator, change, name, text):
    chosen, reason = choose(accelerator, **RUN | change)
    assert chosen == name and text in reason


@pytest.mark.parametrize(
    ("name", "accelerator", "change"),
    [
        ("auto", CPU, {}),
        ("xla", H200, {"lengths": (100, 30), "dtype": "float32", "head_dim": 7}),
        ("cudnn", H200, {}),
        ("cudnn", H200, {"lengths": None}),
        ("cudnn", Accelerator("gpu", "NVIDIA of next year", 13.0), {}),
        ("pallas", H200, {"lengths": (100, 30), "dtype": "float32"}),
    ],
)
def test_an_implementation_that_can_work_is_not_refused(name, accelerator, change):
    require(name, accelerator, **RUN | change)


@pytest.mark.parametrize(
    ("name", "accelerator", "change", "text"),
    [
        ("cudnn", H200, {"lengths": (1024, 192)}, "multiples of 128 long, and one is 192. Or use 'auto' or 'xla'"),
        ("cudnn", H200, {"dtype": "float32"}, "computes in bfloat16 or float16"),
        ("cudnn", H200, {"head_dim": 12}, "multiples of 8 up to 256"),
        ("cudnn", TPU, {}, "runs on NVIDIA GPUs, but the platform is 'tpu'"),
        ("cudnn", MI300X, {}, "runs on NVIDIA GPUs, but the platform is 'gpu'"),
        ("cudnn", T4, {}, "Ampere or later, and this is 'Tesla T4'"),
        ("pallas", V100, {}, "Ampere or later, and this is 'Tesla V100-SXM2-16GB'"),
        ("pallas", CPU, {}, "only be interpreted, for tests. Use 'auto'"),
        ("pallas", H200, {"head_dim": 48}, "16, 32, 64 or 128 long, and T5Config.head_dim is 48"),
        ("pallas", H200, {"dtype": "float64"}, "computes in bfloat16, float16, float32"),
    ],
)
def test_an_implementation_that_cannot_work_is_refused_with_the_failing_condition(name, accelerator, change, text):
    with pytest.raises(ValueError, match=f"Execution.attention is '{name}'") as refusal:
        require(name, accelerator, **RUN | change)
    assert text in str(refusal.value)
