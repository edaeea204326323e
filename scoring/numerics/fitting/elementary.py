"""Exponential and scaled complementary error function without branches or library calls.

LLVM turns a loop over these into vector instructions, which a call to `math.exp` or `math.erfc`
would prevent; that is where most of the solver's speed comes from. Used by `likelihood`.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core.typing.templates import Signature
from numba.extending import intrinsic

# Fused multiply-add only: reassociation would break the rounding trick in `exp_of_negative`.
FAST = {"contract"}


@intrinsic
def _bits_of(typing_context: Any, value: Any) -> tuple[Signature, Any]:
    """The 64 bits of a float64 as an integer."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.int64(types.float64), generate


@intrinsic
def _float_of(typing_context: Any, bits: Any) -> tuple[Signature, Any]:
    """The float64 with these 64 bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), generate


@njit(cache=True, nogil=True, fastmath=FAST, inline="always", error_model="numpy")
def exp_of_negative(x: float) -> float:
    """exp(x) for x <= 0 to 2e-16 relative; below -700 the value at -700 (1e-304), never zero.

    Cody-Waite: x = k ln 2 + r, a Taylor polynomial in |r| <= 0.35, and k written into the exponent.
    Adding 1.5 * 2^52 rounds k to an integer and leaves it in the low bits.
    """
    x = max(x, -700.0)
    shifted = x * 1.4426950408889634 + 6755399441055744.0
    k = shifted - 6755399441055744.0
    r = x - k * 0.6931471805598903
    r = r - k * 5.497923018708371e-14
    value = 2.08767569878681e-09
    value = value * r + 2.505210838544172e-08
    value = value * r + 2.755731922398589e-07
    value = value * r + 2.7557319223985893e-06
    value = value * r + 2.48015873015873e-05
    value = value * r + 0.0001984126984126984
    value = value * r + 0.001388888888888889
    value = value * r + 0.008333333333333333
    value = value * r + 0.041666666666666664
    value = value * r + 0.16666666666666666
    value = value * r + 0.5
    value = value * r + 1.0
    value = value * r + 1.0
    return value * _float_of((_bits_of(shifted) + 1023) << 52)  # type: ignore[call-arg]


@njit(cache=True, nogil=True, fastmath=FAST, inline="always", error_model="numpy")
def erfcx_of_positive(u: float) -> float:
    """exp(u^2) erfc(u) for u >= 0 to 4e-15 relative, without overflow for any finite u.

    (1 + 2u) times it is smooth in t = (u - 3.75) / (u + 3.75), a map of [0, inf) onto [-1, 1)
    (Shepherd and Laframboise 1981); the coefficients are our own Chebyshev interpolation.
    """
    t = (u - 3.75) / (u + 3.75)
    value = 1.7585928434384187e-08
    value = value * t + 8.5325357736148e-09
    value = value * t - 2.1446300893762718e-07
    value = value * t - 2.7773925419556678e-08
    value = value * t + 1.6962993980068833e-06
    value = value * t - 1.0083067441406387e-06
    value = value * t - 1.1400048761459374e-05
    value = value * t + 2.2409988555461717e-05
    value = value * t + 5.162622003614184e-05
    value = value * t - 0.0002901662864330886
    value = value * t + 0.00029372135171097224
    value = value * t + 0.0017556295084706277
    value = value * t - 0.009746581176833758
    value = value * t + 0.028362276757171467
    value = value * t - 0.05869339838987433
    value = value * t + 0.09230432122653641
    value = value * t - 0.10880393015444434
    value = value * t + 0.08227673848709696
    value = value * t + 0.0035854154857809517
    value = value * t - 0.14024059858550522
    value = value * t + 1.2375126308378266
    return value / (1.0 + 2.0 * u)
