"""Products and sums whose gradients are written out, because XLA on CPU is slow with the derived ones."""

import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.custom_vjp
def project(x_BTD: Float[Array, "B T D"], kernel_DF: Float[Array, "D F"]) -> Float[Array, "B T F"]:
    """Returns x @ kernel, whose gradient materializes the incoming cotangent once."""
    return jnp.dot(x_BTD, kernel_DF)


def _project_forward(
    x_BTD: Float[Array, "B T D"], kernel_DF: Float[Array, "D F"]
) -> tuple[Float[Array, "B T F"], tuple[jax.Array, jax.Array]]:
    # `jnp.dot` and not `project`: a rematerialization policy recognizes products.
    return jnp.dot(x_BTD, kernel_DF), (x_BTD, kernel_DF)


def _project_backward(
    residuals: tuple[jax.Array, jax.Array], grad_BTF: Float[Array, "B T F"]
) -> tuple[Float[Array, "B T D"], Float[Array, "D F"]]:
    x_BTD, kernel_DF = residuals
    # XLA on CPU would fuse what produces the cotangent (a gelu's derivative, a dropout mask) into the transposing copy
    # that the kernel's gradient needs, element by element and with large strides: a fifth of a training step.
    grad_BTF = jax.lax.optimization_barrier(grad_BTF)
    x_grad_BTD = jnp.einsum("BTF,DF->BTD", grad_BTF, kernel_DF)
    # XLA transposes the left operand, so it should be the smaller one.
    if x_BTD.shape[-1] < grad_BTF.shape[-1]:
        return x_grad_BTD, jnp.einsum("BTD,BTF->DF", x_BTD, grad_BTF)
    return x_grad_BTD, jnp.einsum("BTF,BTD->FD", grad_BTF, x_BTD).T


project.defvjp(_project_forward, _project_backward)


@jax.custom_vjp
def scale_features(x_BTD: Float[Array, "B T D"], scale_D: Float[Array, " D"]) -> Float[Array, "B T D"]:
    """Returns x * scale, whose gradient sums over positions by `sum_leading`."""
    return x_BTD * scale_D[None, None]


def _scale_forward(
    x_BTD: Float[Array, "B T D"], scale_D: Float[Array, " D"]
) -> tuple[Float[Array, "B T D"], tuple[jax.Array, jax.Array]]:
    return x_BTD * scale_D[None, None], (x_BTD, scale_D)


def _scale_backward(
    residuals: tuple[jax.Array, jax.Array], grad_BTD: Float[Array, "B T D"]
) -> tuple[Float[Array, "B T D"], Float[Array, " D"]]:
    x_BTD, scale_D = residuals
    return grad_BTD * scale_D[None, None], sum_leading("BTD->D", grad_BTD * x_BTD)


scale_features.defvjp(_scale_forward, _scale_backward)


def sum_leading(subscripts: str, x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns `jnp.einsum(subscripts, x)`, a sum over leading dimensions such as "BTD->D".

    On CPU it is a product with ones: XLA (jaxlib 0.10.2) takes up to seven times as long for the sum, and postpones the
    sums of several layers to one at the end of the step, barriers or not.
    """
    names, remaining = subscripts.split("->")
    summed = "".join(name for name in names if name not in remaining)

    def product(x: jax.Array) -> Any:
        sizes = dict(zip(names, x.shape, strict=True))
        return jnp.einsum(f"{summed},{subscripts}", jnp.ones([sizes[name] for name in summed], x.dtype), x)

    plain = functools.partial(jnp.einsum, subscripts)
    return cast(jax.Array, jax.lax.platform_dependent(x, cpu=product, default=plain))
