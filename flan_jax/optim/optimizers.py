"""The optimisers: Adafactor as T5X computes it, and AdamW.

Both are Optax transformations put together with the arguments that make them what their names promise. Which
parameters one of them takes is `optim.selection`'s business, and the rate over time that of `optim.schedules`.

The state is made for sharding and saving: a leaf that belongs to a parameter sits under that parameter's path, and
either has its shape (Adafactor's `v`, Adam's `mu` and `nu`) or is small (`v_row`, `v_col`, placeholders of shape
[1], step counts), so that it can be replicated.
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
    """Returns Adafactor (Shazeer and Stern, 2018, arXiv:1804.04235) with T5X's defaults and T5X's updates.

    Optax's own Adafactor gives T5X's numbers for vectors and matrices, which is all that the T5 tree holds. T5X
    factors parameters of higher rank (stacked layers) by logical axes, and Optax by their two largest dimensions.

    Args:
      learning_rate: Relative to each parameter's root mean square, unless `multiply_by_parameter_scale` is off.
      decay_rate: Exponent of the second moment's decay, 1 - (step + 1) ** -decay_rate.
      step_offset: Steps to subtract for that decay, when the state goes on from a pretraining run.
      momentum: Decay of a first moment; None keeps none, and so needs no memory for it.
      clipping_threshold: Largest root mean square of a parameter's update before it is scaled.
      multiply_by_parameter_scale: Whether rates are relative to the size of the parameter.
      weight_decay_rate: Share of each parameter that is taken off at every step, whatever the learning rate.
      min_dim_size_to_factor: Matrices of which both sides have this size keep row and column sums in place of squares.
      max_gradient_norm: Gradients of these parameters together are scaled down to this norm first.

    Returns:
      A transformation whose `update` needs the parameters.
    """
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
    """Returns AdamW (Loshchilov and Hutter, 2019, arXiv:1711.05101), moments in float32.

    Args:
      learning_rate: Absolute, as in the paper: some hundredths of what Adafactor takes.
      beta1: Decay of the first moment.
      beta2: Decay of the second moment.
      epsilon: Added to the root of the second moment.
      weight_decay: Share of a parameter that is taken off at every step, times the learning rate.
      no_decay: Regular expressions that match whole parameter paths, as `encoder/encoder_norm/scale`; these
        parameters do not decay.
      max_gradient_norm: Gradients of these parameters together are scaled down to this norm first; None: never.

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
        raise UserError(
            f"max_gradient_norm is {max_gradient_norm}; it has to be above 0, or None for gradients left as they are."
        )
    return optax.chain(optax.clip_by_global_norm(max_gradient_norm), transformation)
