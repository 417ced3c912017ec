"""Convolutions that keep their speed inside compiled loops on a CPU.

XLA's CPU compiler has a fast convolution for one layout only: batch, height, width, channels, with kernels as
height, width, in, out. A pass of its own turns other layouts into that one, but it looks at a program's
outermost computation alone. The gradient of a convolution is a convolution in another layout, so inside a
loop it falls to a naive implementation, 12 to 30 times slower (measured with jaxlib 0.10). `canonical`
rewrites a function so that every convolution has the fast layout wherever it stands; and the gradient for a
kernel, whose "kernel" is as large as the picture, becomes one matrix product over patches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxpr_as_fun

from shoal.vector import Array


def canonical(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function with its convolutions rewritten; the function itself where it has none."""

    def rewritten(*args: Any) -> Any:
        traced, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        if not _has_convolution(traced.jaxpr):
            return function(*args)
        outputs = jaxpr_as_fun(_rewrite(traced))(*jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shape), outputs)

    return rewritten


def _has_convolution(jaxpr: Jaxpr) -> bool:
    return any(
        eqn.primitive.name == "conv_general_dilated" or any(map(_has_convolution, _inner(eqn))) for eqn in jaxpr.eqns
    )


def _inner(eqn: JaxprEqn) -> list[Jaxpr]:
    """The programs inside an equation: a loop's body, a branch, a called function."""
    found: list[Jaxpr] = []
    for value in eqn.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, ClosedJaxpr):
                found.append(item.jaxpr)
            elif isinstance(item, Jaxpr):
                found.append(item)
    return found


def _rewrite(closed: ClosedJaxpr) -> ClosedJaxpr:
    return ClosedJaxpr(_rewrite_jaxpr(closed.jaxpr), closed.consts)


def _rewrite_jaxpr(jaxpr: Jaxpr) -> Jaxpr:
    eqns: list[JaxprEqn] = []
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "conv_general_dilated" and eqn.params["batch_group_count"] == 1:
            eqns.extend(_spliced(eqn))
        elif any(map(_has_convolution, _inner(eqn))):
            params = {name: _rewrite_value(value) for name, value in eqn.params.items()}
            eqns.append(eqn.replace(params=params))
        else:
            eqns.append(eqn)
    return jaxpr.replace(eqns=eqns)


def _rewrite_value(value: Any) -> Any:
    match value:
        case ClosedJaxpr():
            return _rewrite(value)
        case Jaxpr():
            return _rewrite_jaxpr(value)
        case tuple() | list():
            return type(value)(_rewrite_value(item) for item in value)
        case _:
            return value


def _spliced(eqn: JaxprEqn) -> list[JaxprEqn]:
    """The equations of the rewritten convolution, reading and writing the variables of the old one."""

    def convolution(left: Array, right: Array) -> Array:
        return _convolution(left, right, **eqn.params)

    inputs: list[Any] = [v.aval for v in eqn.invars]
    inner = jax.make_jaxpr(convolution)(*(jax.ShapeDtypeStruct(i.shape, i.dtype) for i in inputs))
    names: dict[Any, Any] = dict(zip(inner.jaxpr.invars, eqn.invars, strict=True))
    names[inner.jaxpr.outvars[0]] = eqn.outvars[0]

    def renamed(variables: Sequence[Any]) -> list[Any]:
        return [v if isinstance(v, Literal) else names.get(v, v) for v in variables]

    return [e.replace(invars=renamed(e.invars), outvars=renamed(e.outvars)) for e in inner.jaxpr.eqns]


def _convolution(left: Array, right: Array, *, dimension_numbers: Any, **params: Any) -> Array:
    """`lax.conv_general_dilated` in the fast layout, or as a matrix product over patches."""
    if _is_kernel_gradient(left.shape, right.shape, dimension_numbers, params):
        return _by_patches(left, right, dimension_numbers, params["padding"])
    left = jnp.transpose(left, _image_order(dimension_numbers.lhs_spec))
    right = jnp.transpose(right, (*dimension_numbers.rhs_spec[2:], *dimension_numbers.rhs_spec[1::-1]))
    out = jax.lax.conv_general_dilated(
        left,
        right,
        params["window_strides"],
        params["padding"],
        params["lhs_dilation"],
        params["rhs_dilation"],
        dimension_numbers=_FAST[left.ndim],
        feature_group_count=params["feature_group_count"],
        precision=params["precision"],
        preferred_element_type=params["preferred_element_type"],
    )
    return _from_image_order(out, dimension_numbers.out_spec)


_FAST = {3: ("NHC", "HIO", "NHC"), 4: ("NHWC", "HWIO", "NHWC"), 5: ("NDHWC", "DHWIO", "NDHWC")}


def _image_order(spec: Sequence[int]) -> tuple[int, ...]:
    """From JAX's order (batch, channels, sides) to batch, sides, channels."""
    return (spec[0], *spec[2:], spec[1])


def _from_image_order(out: Array, spec: Sequence[int]) -> Array:
    back = _image_order(spec)
    return jnp.transpose(out, [back.index(axis) for axis in range(out.ndim)])


def _is_kernel_gradient(left: Sequence[int], right: Sequence[int], numbers: Any, params: Any) -> bool:
    """Whether the window covers nearly everything, so that there are only a few places for it to stand.

    Up to nine, a 3 x 3 kernel's gradient, patches are 1.3 to 2 times as fast; at 25 they lose (measured).
    """
    plain = params["feature_group_count"] == 1 and all(
        step == 1 for name in ("window_strides", "lhs_dilation", "rhs_dilation") for step in params[name]
    )
    if not plain or len(left) != 4:
        return False
    window = [right[axis] for axis in numbers.rhs_spec[2:]]
    return math.prod(_places(left, window, numbers, params["padding"])) <= min(9, math.prod(window))


def _places(left: Sequence[int], window: Sequence[int], numbers: Any, padding: Any) -> list[int]:
    """In how many places the window can stand along each side."""
    sides = [left[axis] for axis in numbers.lhs_spec[2:]]
    return [side + sum(pad) - size + 1 for side, pad, size in zip(sides, padding, window, strict=True)]


def _by_patches(left: Array, right: Array, numbers: Any, padding: Any) -> Array:
    """The picture under the window at each of its places, side by side; then one matrix product.

    Nothing is transposed: pieces are cut and joined in the layout that the arrays have.
    """
    batch, channel, *sides = numbers.lhs_spec
    out_channel, in_channel, *window_sides = numbers.rhs_spec
    window = [right.shape[axis] for axis in window_sides]
    places = _places(left.shape, window, numbers, padding)
    pads = dict(zip(sides, padding, strict=True))
    left = jnp.pad(left, [pads.get(axis, (0, 0)) for axis in range(left.ndim)])
    patches = jnp.concatenate(
        [
            jax.lax.slice_in_dim(
                jax.lax.slice_in_dim(left, row, row + window[0], axis=sides[0]),
                column, column + window[1], axis=sides[1],
            )
            for row in range(places[0])
            for column in range(places[1])
        ],
        axis=batch,
    )  # fmt: skip
    over = ((channel, *sides), (in_channel, *window_sides))
    product = jax.lax.dot_general(patches, right, (over, ((), ())))
    out = product.reshape(*places, left.shape[batch], right.shape[out_channel])
    return _from_image_order(jnp.transpose(out, (2, 0, 1, 3)), numbers.out_spec)
