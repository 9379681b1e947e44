import jax.numpy as jnp
import numpy as np
import pytest

from flan_jax.train.soundness import require_sound
from flan_jax.train.state import TrainState


def state(value, *, moment=1.0, dtype=jnp.float32):
    params = {"a": jnp.ones((2, 3)), "b": jnp.asarray([0.5, value], dtype), "count": jnp.int32(2**31 - 1)}
    return TrainState(step=np.int32(7), params=params, opt_state={"v": jnp.asarray([moment]), "count": jnp.int32(7)})


@pytest.mark.parametrize("value", [0.0, -900.0, 9e5])
def test_sizes_that_training_reaches_are_sound(value):
    require_sound(state(value, moment=1e30))
    require_sound(TrainState(step=np.int32(1), params={}, opt_state=()))


@pytest.mark.parametrize("value", [1e30, -2e6, np.inf, np.nan])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_exploded_parameters_are_refused_with_what_to_do(value, dtype):
    with pytest.raises(
        ValueError, match="Step 7 is not saved.*diverged, the largest parameter is .*another MODEL_DIR with a lower"
    ):
        require_sound(state(value, dtype=dtype))


@pytest.mark.parametrize("moment", [np.inf, np.nan])
def test_an_optimizer_that_is_not_finite_is_refused(moment):
    with pytest.raises(ValueError, match="the optimizer's state is not finite"):
        require_sound(state(1.0, moment=moment))
