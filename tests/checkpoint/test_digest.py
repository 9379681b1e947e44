import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from flan_jax.checkpoint.digest import params_digest

PARAMS = {"b": {"scale": np.array([1, 2], np.float32)}, "a": np.array([[3], [4]], np.int32)}


def test_it_is_sha_256_of_names_dtypes_shapes_and_bytes_in_sorted_order():
    spelled = b"a\0int32\x002,1\0" + PARAMS["a"].tobytes() + b"b/scale\0float32\x002\0" + PARAMS["b"]["scale"].tobytes()
    assert params_digest(PARAMS) == hashlib.sha256(spelled).hexdigest()


def test_the_order_is_that_of_full_names():
    one = np.zeros(1, np.int8)
    spelled = b"a-b\0int8\x001\0\0" + b"a/x\0int8\x001\0\0"
    assert params_digest({"a": {"x": one}, "a-b": one}) == hashlib.sha256(spelled).hexdigest()


def test_order_device_sharding_and_memory_layout_do_not_matter():
    wanted = params_digest({"w": np.arange(32.0, dtype=np.float32).reshape(8, 4)})
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    values = jnp.arange(32.0).reshape(8, 4)
    assert params_digest({"w": values}) == wanted
    assert params_digest({"w": jax.device_put(values, NamedSharding(mesh, PartitionSpec("data")))}) == wanted
    assert params_digest({"w": np.asfortranarray(np.asarray(values))}) == wanted
    assert params_digest(dict(reversed(PARAMS.items()))) == params_digest(PARAMS)


@pytest.mark.parametrize(
    "other",
    [
        {**PARAMS, "a": PARAMS["a"].reshape(1, 2)},
        {**PARAMS, "a": PARAMS["a"].view(np.uint32)},
        {**PARAMS, "a": PARAMS["a"] + np.array([[0], [1]], np.int32)},
        {"b": PARAMS["b"], "c": PARAMS["a"]},
        {**PARAMS, "c": np.zeros(0, np.float32)},
    ],
)
def test_any_other_name_dtype_shape_or_bit_gives_another_digest(other):
    assert params_digest(other) != params_digest(PARAMS)


def test_bfloat16_and_scalars_are_digested():
    assert params_digest({"a": jnp.bfloat16(1)}) != params_digest({"a": jnp.bfloat16(2)})
