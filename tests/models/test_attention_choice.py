"""The rule behind attention = "auto", and what is refused by name."""

import pytest

from flan_jax.models.attention_choice import choose, require

H200 = {"platform": "gpu", "device_kind": "NVIDIA H200", "lengths": (1024, 256), "head_dim": 64, "dtype": "bfloat16"}


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        ({}, "cudnn", "fused, bfloat16 heads of 64, rows of 1024 and 256 on NVIDIA H200"),
        ({"device_kind": "NVIDIA A100-SXM4-80GB"}, "cudnn", "A100"),
        ({"device_kind": "NVIDIA H100 80GB HBM3"}, "cudnn", "H100"),
        ({"device_kind": "NVIDIA GeForce RTX 4090"}, "cudnn", "4090"),
        ({"device_kind": "NVIDIA GB200"}, "cudnn", "GB200"),
        ({"device_kind": "Tesla V100-SXM2-16GB"}, "xla", "not known to be an NVIDIA GPU of Ampere or later"),
        ({"device_kind": "AMD Instinct MI300X"}, "xla", "not known to be an NVIDIA GPU"),
        ({"lengths": (1024, 64)}, "xla", "multiples of 128 long, and one is 64"),
        ({"lengths": None}, "xla", "lengths are not known"),
        ({"dtype": "float32"}, "xla", "computes in bfloat16 or float16, and T5Config.dtype is 'float32'"),
        ({"head_dim": 60}, "xla", "multiples of 8 up to 256 on NVIDIA H200, and T5Config.head_dim is 60"),
        ({"head_dim": 256}, "cudnn", "heads of 256"),
        ({"head_dim": 256, "device_kind": "NVIDIA L4"}, "xla", "multiples of 8 up to 128 on NVIDIA L4"),
        ({"platform": "cpu", "device_kind": "cpu"}, "xla", "every platform but NVIDIA GPUs"),
        ({"platform": "tpu", "device_kind": "TPU v5 lite"}, "xla", "every platform but NVIDIA GPUs"),
    ],
)
def test_auto_is_cudnn_where_all_of_its_conditions_hold_and_says_why(change, name, words):
    found, why = choose(**H200 | change)
    assert found == name and words in why


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("auto", {"platform": "cpu", "device_kind": "cpu"}),
        ("xla", {"lengths": (100, 30), "dtype": "float32", "head_dim": 7}),
        ("cudnn", {}),
        ("cudnn", {"lengths": None}),
        ("cudnn", {"device_kind": "NVIDIA of next year"}),
        ("pallas", {"lengths": (100, 30), "dtype": "float32"}),
    ],
)
def test_what_can_work_is_not_refused(name, change):
    require(name, **H200 | change)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("cudnn", {"lengths": (1024, 192)}, "multiples of 128 long, and one is 192. Or use 'auto' or 'xla'"),
        ("cudnn", {"dtype": "float32"}, "computes in bfloat16 or float16"),
        ("cudnn", {"head_dim": 12}, "multiples of 8 up to 256"),
        ("cudnn", {"platform": "tpu", "device_kind": "TPU v4"}, "runs on NVIDIA GPUs, but the platform is 'tpu'"),
        ("cudnn", {"device_kind": "AMD Instinct MI300X"}, "runs on NVIDIA GPUs, but the platform is 'gpu'"),
        ("cudnn", {"device_kind": "Tesla T4"}, "Ampere or later, and this is 'Tesla T4'"),
        ("pallas", {"device_kind": "Tesla V100-SXM2-16GB"}, "Ampere or later, and this is 'Tesla V100-SXM2-16GB'"),
        ("pallas", {"platform": "cpu", "device_kind": "cpu"}, "only be interpreted, which is for tests. Use 'auto'"),
        ("pallas", {"head_dim": 48}, "16, 32, 64 or 128 long, and T5Config.head_dim is 48"),
        ("pallas", {"dtype": "float64"}, "computes in bfloat16, float16, float32"),
    ],
)
def test_what_cannot_work_is_refused_with_the_condition_that_fails(name, change, words):
    with pytest.raises(ValueError, match=f"Execution.attention is '{name}'") as refusal:
        require(name, **H200 | change)
    assert words in str(refusal.value)
