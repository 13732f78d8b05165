"""The code that a message travels in: BCH codes, decoded by how sure one is of each bit.

A narrow-sense binary BCH code of length n = 2^m - 1 is cyclic: its words are the multiples of a generator polynomial,
the least common multiple of the minimal polynomials of a, a^3, ..., a^(2t - 1) over GF(2), a primitive in GF(2^m)
(Bose and Ray-Chaudhuri 1960); it mends any t bits. What a picture says of a bit is no bit but a number, and that is
worth half of the signal: words are looked for by ordered statistics (Fossorier and Lin 1995, order 2), which takes the
surest k positions that determine a word, and tries the words that differ in up to two of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from jaxtyping import Float, Int, UInt8

_PRIMITIVE = {6: 0b1000011, 7: 0b10001001, 8: 0b100011101}
"""A primitive polynomial for each m, bit i the coefficient of x^i."""


@dataclass(frozen=True)
class Code:
    """A systematic BCH code: of its n bits the first k are the message."""

    n: int
    k: int

    @cached_property
    def generator(self) -> UInt8[np.ndarray, "k n"]:
        """Its words are the sums of these rows: (identity, parity)."""
        polynomial, r = generator_polynomial(self.n, self.k), self.n - self.k
        rows = np.zeros((self.k, self.n), np.uint8)
        for row in range(self.k):
            remainder = _remainder(1 << (self.n - 1 - row), polynomial)
            rows[row, row] = 1
            rows[row, self.k :] = [remainder >> (r - 1 - i) & 1 for i in range(r)]
        return rows

    def encode(self, message: UInt8[np.ndarray, " k"]) -> UInt8[np.ndarray, " n"]:
        """The word of a message, both of zeros and ones."""
        return message @ self.generator & 1

    def decode(self, values: Float[np.ndarray, " n"]) -> UInt8[np.ndarray, " k"]:
        """The message whose word agrees best with values, of which the sign is the bit (above 0: one), the size how
        sure it is. With errors beyond half of the distance it may be another than the best."""
        sure = np.argsort(-np.abs(values), kind="stable")
        reduced, basis = _echelon(self.generator[:, sure])
        basis = sure[basis]
        hard = (values[basis] > 0).astype(np.uint8)
        undone = np.empty_like(sure)
        undone[sure] = np.arange(self.n)
        reduced = reduced[:, undone]
        word = hard @ reduced & 1
        signs = np.where(values > 0, 1.0, -1.0) * np.abs(values)
        # A word with rows of the basis added agrees by the sum of values with the bits flipped that they flip.
        agreement = (2.0 * word - 1.0) * signs
        flips = 1.0 - 2.0 * reduced  # -1 where a row flips
        single = flips @ agreement
        double = (flips * agreement) @ flips.T
        best, which = float(agreement.sum()), ()
        if single.max() > best:
            best, which = float(single.max()), (int(single.argmax()),)
        np.fill_diagonal(double, -np.inf)
        if double.max() > best:
            which = tuple(int(i) for i in np.unravel_index(double.argmax(), double.shape))
        for row in which:
            word = word ^ reduced[row]
        return word[: self.k]


@cache
def generator_polynomial(n: int, k: int) -> int:
    """Of the narrow-sense binary BCH code of n bits and k message bits, bit i the coefficient of x^i.

    Raises ValueError where there is none.
    """
    m = n.bit_length()
    if n != 2**m - 1 or m not in _PRIMITIVE:
        raise ValueError(f"no code of {n} bits, but of 63, 127 and 255")
    powers = [1]
    while len(powers) < n:
        shifted = powers[-1] << 1
        powers.append(shifted ^ _PRIMITIVE[m] if shifted >> m else shifted)
    logs = {value: i for i, value in enumerate(powers)}
    polynomial, roots, first = 1, set(), 1
    while polynomial.bit_length() - 1 < n - k:
        if first not in roots:
            coset = sorted({first * 2**i % n for i in range(m)})
            roots.update(coset)
            minimal = [1]  # coefficients in GF(2^m), lowest first, times (x + a^c) for each c of the coset
            for c in coset:
                lifted = [powers[(logs[v] + c) % n] if v else 0 for v in minimal] + [0]
                minimal = [low ^ high for low, high in zip(lifted, [0, *minimal], strict=True)]
            polynomial = _product(polynomial, sum(bit << i for i, bit in enumerate(minimal)))
        first += 2
    if polynomial.bit_length() - 1 != n - k:
        raise ValueError(f"no BCH code of {n} bits has {k} message bits")
    return polynomial


def _product(a: int, b: int) -> int:
    """Of polynomials over GF(2)."""
    out = 0
    while b:
        out ^= a * (b & 1)
        a, b = a << 1, b >> 1
    return out


def _remainder(a: int, b: int) -> int:
    """Of polynomials over GF(2)."""
    while a.bit_length() >= b.bit_length():
        a ^= b << (a.bit_length() - b.bit_length())
    return a


def _echelon(rows: UInt8[np.ndarray, "k n"]) -> tuple[UInt8[np.ndarray, "k n"], Int[np.ndarray, " k"]]:
    """Reduced row echelon form over GF(2), and the first columns that are independent."""
    rows, pivots = rows.copy(), []
    for column in range(rows.shape[1]):
        top = len(pivots)
        if top == len(rows):
            break
        below = np.flatnonzero(rows[top:, column])
        if not len(below):
            continue
        rows[[top, top + below[0]]] = rows[[top + below[0], top]]
        others = rows[:, column].astype(bool)
        others[top] = False
        rows[others] ^= rows[top]
        pivots.append(column)
    return rows, np.array(pivots)
