"""The optimizers: Adafactor as T5X computes it, and AdamW.

Both are Optax transformations. `optim.selection` chooses the parameters that one of them trains, `optim.schedules` its
rate over time.

The state is suited to sharding and saving: a leaf that belongs to a parameter is under that parameter's path, and
either has its shape (Adafactor's `v`, Adam's `mu` and `nu`) or is small enough to be replicated (`v_row`, `v_col`,
placeholders of shape [1], step counts).
"""

import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from flan_jax.errors import UserError
from flan_jax.optim.schedules import Schedule
from flan_jax.optim.selection import path_name


def adafactor(
    learning_rate: float | Schedule,
    *,
    decay_rate: float = 0.8,
    step_offset: int = 0,
    momentum: float | None = None,
    clipping_threshold: float | None = 1.0,
    multiply_by_parameter_scale: bool = True,
    weight_decay_rate: float | None = None,
    min_dim_size_to_factor: int = 128,
    max_gradient_norm: float | None = None,
) -> optax.GradientTransformation:
    """Returns Adafactor (Shazeer and Stern, 1804.04235) with T5X's defaults and T5X's updates.

    For vectors and matrices, the only ranks in the T5 tree, Optax's Adafactor computes T5X's numbers. Parameters of
    higher rank (stacked layers) would differ: T5X factors them by logical axes, Optax by their two largest dimensions.

    Args:
      learning_rate: Relative to each parameter's root mean square if `multiply_by_parameter_scale`.
      decay_rate: Exponent of the second moment's decay, 1 - (step + 1) ** -decay_rate.
      step_offset: Steps to subtract in that decay, when the state continues a pretraining run's.
      momentum: Decay of a first moment; None for no first moment, and no memory for it.
      clipping_threshold: Largest root mean square of a parameter's update before it is scaled.
      multiply_by_parameter_scale: Whether rates are relative to the size of the parameter.
      weight_decay_rate: Fraction of each parameter subtracted at every step, independent of the learning rate.
      min_dim_size_to_factor: Matrices with both dimensions at least this large have row and column statistics only.
      max_gradient_norm: The gradients of these parameters together are clipped to this norm first; None for no
        clipping.

    Returns:
      A transformation whose `update` needs the parameters.
    """
    # Not repeated here, because Optax and T5X agree: 1e-30 is added to squared gradients, and 1e-3 is a parameter's
    # least scale.
    transformation = optax.adafactor(
        learning_rate,
        min_dim_size_to_factor=min_dim_size_to_factor,
        decay_rate=decay_rate,
        decay_offset=step_offset,
        multiply_by_parameter_scale=multiply_by_parameter_scale,
        clipping_threshold=clipping_threshold,
        momentum=momentum,
        weight_decay_rate=weight_decay_rate,
    )
    return _clipped(transformation, max_gradient_norm)


def adamw(
    learning_rate: float | Schedule,
    *,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 0.01,
    no_decay: Sequence[str] = (r"(.*/)?scale", r"(.*/)?bias", r"(.*/)?rel_embedding"),
    max_gradient_norm: float | None = 1.0,
) -> optax.GradientTransformation:
    """Returns AdamW (Loshchilov and Hutter, 1711.05101) with moments in float32.

    Args:
      learning_rate: Absolute, as in the paper: about a hundredth of a typical rate for Adafactor.
      beta1: Decay of the first moment.
      beta2: Decay of the second moment.
      epsilon: Added to the square root of the second moment.
      weight_decay: Fraction of a parameter subtracted at every step, times the learning rate.
      no_decay: Regular expressions that match complete parameter paths (`encoder/encoder_norm/scale`) without decay.
      max_gradient_norm: The gradients of these parameters together are clipped to this norm first; None for no
        clipping.

    Returns:
      A transformation whose `update` needs the parameters.
    """
    exempt = [re.compile(pattern) for pattern in no_decay]

    def decays(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: not any(pattern.fullmatch(path_name(path)) for pattern in exempt), params
        )

    transformation = optax.adamw(
        learning_rate,
        b1=beta1,
        b2=beta2,
        eps=epsilon,
        weight_decay=weight_decay,
        mask=decays,
        mu_dtype=jnp.float32,
    )
    return _clipped(transformation, max_gradient_norm)


def _clipped(
    transformation: optax.GradientTransformation, max_gradient_norm: float | None
) -> optax.GradientTransformation:
    if max_gradient_norm is None:
        return transformation
    if not max_gradient_norm > 0:
        raise UserError(f"max_gradient_norm is {max_gradient_norm}; it must be above 0, or None for no clipping.")
    # First, so that one outlier enters the moments clipped.
    return optax.chain(optax.clip_by_global_norm(max_gradient_norm), transformation)
