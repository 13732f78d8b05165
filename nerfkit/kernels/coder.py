"""An arithmetic coder that learns its probabilities on the way, in integers alone: every machine reads what one wrote.

Whole numbers are taken apart into yes-or-no questions (is it zero? has it more than one bit? ...). For each question
several contexts, such as the numbers beside it, have each learnt how often the answer was yes; a small network mixes
what they say and learns whom to trust (Mahoney 2005, "Adaptive Weighing of Context Models for Lossless Data
Compression"). A range coder turns an answer of probability p into -log2 p bits.
"""

from __future__ import annotations

from decimal import Decimal, localcontext
from functools import lru_cache

import torch
from jaxtyping import Bool, Int16, UInt8
from torch import Tensor

from nerfkit.kernels.launch import Native

MOST = 2047
"""Largest number, either way, that can be coded."""
BLOCK = 8
"""Cells along one side of a block, which is empty or is not."""
_ONE = 256
"""A logit of 1."""
_LIMIT = 255
"""Answers that a context remembers, about."""
_SLOTS, _WEIGHTS = 8 * 8192, 4096
"""Room for contexts, 8192 for each input of the network, and for its weights, 8 to a set."""
_FIRST_WEIGHT = 20000
"""Of 65536, for each input."""

_CODER = """
struct coder {
  const int* stretch; const int* squash; const int* rates;
  unsigned int* slots; int* weights;
  unsigned char* bytes; const long long n_bytes;
  const bool decoding;
  long long at;
  unsigned int low, high, value;

  void begin() {
    at = 0; low = 0; high = 0xffffffffu; value = 0;
    for (int i = 0; decoding && i < 4; ++i) value = value << 8 | next();
  }
  unsigned int next() { const long long i = at++; return i < n_bytes ? bytes[i] : 0u; }
  void put(unsigned int byte) { const long long i = at++; if (i < n_bytes) bytes[i] = byte; }

  // An answer that is yes with probability p / 65536.
  int range(int y, unsigned int p) {
    const unsigned int span = high - low;
    const unsigned int middle = low + (span >> 16) * p + ((span & 0xffffu) * p >> 16);
    if (decoding) y = value <= middle;
    if (y) high = middle; else low = middle + 1;
    while (((low ^ high) >> 24) == 0) {
      if (decoding) value = value << 8 | next(); else put(high >> 24);
      low <<= 8; high = high << 8 | 255u;
    }
    return y;
  }
  // An answer by what n contexts have learnt; the weights of their mixture are set number `set`.
  int bit(int y, const int* contexts, int n, int set) {
    int logits[8];
    int* w = weights + set * 8;
    long long sum = 0;
    for (int i = 0; i < n; ++i) {
      logits[i] = stretch[slots[8192 * i + contexts[i]] >> 20];
      sum += (long long)w[i] * logits[i];
    }
    const int dot = (int)(sum >> 16), logit = dot < -2047 ? -2047 : dot > 2047 ? 2047 : dot;
    const int p = squash[logit + 2047];
    y = range(y, p);
    const int wrong = (y << 16) - p;
    for (int i = 0; i < n; ++i) {
      w[i] += (logits[i] * wrong + (1 << (SHIFT - 1))) >> SHIFT;
      // A probability of 22 bits, and how many answers are behind it in the 10 below.
      unsigned int& slot = slots[8192 * i + contexts[i]];
      const int count = slot & 1023u, p_i = slot >> 10;
      const int moved = p_i + (int)((long long)((y ? 4194303 : 0) - p_i) * rates[count] >> 16);
      slot = (unsigned int)moved << 10 | (count < LIMIT ? count + 1 : count);
    }
    return y;
  }
  // Beyond its end a reader finds zeros: what one byte leaves open lies within the range.
  void end() { if (!decoding) put(high >> 24); }
};
coder c = {stretch, squash, rates, (unsigned int*)slots, weights, bytes, n_bytes, decoding != 0, 0, 0, 0, 0};
c.begin();
"""

_NUMBERS = """
struct of {
  static int length(int v) { unsigned int m = v < 0 ? -v : v; int n = 0; while (m) { ++n; m >>= 1; } return n; }
  static int least(int a, int b) { return a < b ? a : b; }
  static int side(int v) { return v < 0 ? 1 : v > 0 ? 2 : 0; }
};
const long long steps[4] = {1, 2, row > 0 ? row : 3, plane > 0 ? plane : 4};
for (long long e = 0; e < n_entries; ++e) {
  if (!coded[e]) continue;
  short* here = values + e * n_features;
  int total = 0, before = 0;
  for (int f = 0; e > 0 && f < n_features; ++f) before += of::length(here[f - n_features]);
  for (int f = 0; f < n_features; ++f) {
    int beside[4], size[4];
    for (int k = 0; k < 4; ++k) {
      beside[k] = e >= steps[k] ? here[f - steps[k] * n_features] : 0;
      size[k] = of::least(of::length(beside[k]), 3);
    }
    const int g = of::least(f, 3), last = f > 0 ? of::least(of::length(here[f - 1]), 3) : 0;
    const int around[6] = {
      g * 8 + of::least(total, 7),
      (g * 4 + size[0]) * 4 + size[1],
      (g * 4 + size[2]) * 4 + size[3],
      ((g * 4 + last) * 4 + size[0]) * 4 + size[2],
      (g * 8 + of::least(before, 7)) * 4 + of::least(total, 3),
      g,
    };
    const int v = here[f], wanted = of::length(v);
    int n = 0, contexts[6];
    for (; n < 11; ++n) {
      for (int i = 0; i < 6; ++i) contexts[i] = n * 256 + around[i];
      if (!c.bit(wanted > n, contexts, 6, n * 4 + g)) break;
    }
    int found = 0;
    if (n > 0) {
      contexts[0] = 3072 + (g * 3 + of::side(beside[0])) * 3 + of::side(beside[2]);
      contexts[1] = 3072 + g * 3 + (f > 0 ? of::side(here[f - 1]) : 0);
      contexts[2] = 3072 + g;
      const int negative = c.bit(v < 0, contexts, 3, 48 + g), m = v < 0 ? -v : v;
      found = 1;
      for (int k = n - 2; k >= 0; --k) {
        contexts[0] = 4096 + n * 128 + of::least(found, 127);
        found = found * 2 + c.bit(m >> k & 1, contexts, 1, 52 + n);
      }
      if (negative) found = -found;
    }
    here[f] = found;
    total += of::length(found);
  }
}
c.end();
totals[0] = c.at;
"""

_CELLS = """
const int R = resolution, Q = resolution / 8;
struct grid {
  const unsigned char* cells; const int side;
  int at(int x, int y, int z) const {
    if (x < 0 || y < 0 || z < 0 || x >= side || y >= side || z >= side) return 0;
    return cells[((long long)x * side + y) * side + z];
  }
  int near(int x, int y, int z) const { return at(x - 1, y, z) | at(x, y - 1, z) << 1 | at(x, y, z - 1) << 2; }
};
for (int level = 0; level < n_levels; ++level) {
  unsigned char* own = cells + (long long)level * R * R * R;
  unsigned char* own_blocks = blocks + (long long)level * Q * Q * Q;
  const grid b = {own_blocks, Q}, finer_blocks = {own_blocks - (level ? Q * Q * Q : 0), Q};
  for (int x = 0; x < Q; ++x) for (int y = 0; y < Q; ++y) for (int z = 0; z < Q; ++z) {
    // The cube of the level before fills the middle half of each axis of this one.
    int inside = 0;
    const int u = 2 * x - Q / 2, v = 2 * y - Q / 2, w = 2 * z - Q / 2;
    if (level) for (int k = 0; k < 8; ++k) inside += finer_blocks.at(u + (k & 1), v + (k >> 1 & 1), w + (k >> 2));
    const int contexts[2] = {7168 + b.near(x, y, z) * 16 + inside,
      7168 + (b.near(x, y, z) | b.at(x - 1, y - 1, z) << 3 | b.at(x - 1, y, z - 1) << 4 | b.at(x, y - 1, z - 1) << 5
        | b.at(x - 1, y + 1, z) << 6 | b.at(x - 1, y, z + 1) << 7 | b.at(x, y - 1, z + 1) << 8)};
    unsigned char& here = own_blocks[(x * Q + y) * Q + z];
    here = c.bit(here, contexts, 2, 64);
  }
  const grid g = {own, R}, finer = {own - (level ? (long long)R * R * R : 0), R};
  for (int x = 0; x < R; ++x) for (int y = 0; y < R; ++y) for (int z = 0; z < R; ++z) {
    unsigned char& here = own[((long long)x * R + y) * R + z];
    if (!own_blocks[(x / 8 * Q + y / 8) * Q + z / 8]) { here = 0; continue; }
    const int near = g.near(x, y, z), u = 2 * x - R / 2, v = 2 * y - R / 2, w = 2 * z - R / 2;
    int inside = 0, square = 0, count = 0;
    if (level) for (int k = 0; k < 8; ++k) inside += finer.at(u + (k & 1), v + (k >> 1 & 1), w + (k >> 2));
    for (int i = -1; i < 2; ++i) for (int k = -1; k < 2; ++k) square = square * 2 + g.at(x - 1, y + i, z + k);
    for (int i = -2; i < 3; ++i) count += g.at(x - 2, y + i, z) + g.at(x - 2, y, z + i) + g.at(x - 1, y + 2, z + i)
      + g.at(x - 1, y - 2, z + i) + g.at(x, y - 2, z + i);
    const int line = g.at(x, y - 1, z + 1) | g.at(x, y - 1, z - 1) << 1 | g.at(x, y, z - 2) << 2;
    const int contexts[6] = {
      square << 2 | near >> 1,
      near | line << 3 | g.at(x - 1, y + 1, z) << 6 | g.at(x - 1, y, z + 1) << 7 | g.at(x - 1, y - 1, z) << 8
        | g.at(x - 1, y, z - 1) << 9 | g.at(x, y - 2, z) << 10 | g.at(x - 2, y, z) << 11,
      near | line << 3 | g.at(x, y - 1, z + 2) << 6 | g.at(x, y - 1, z - 2) << 7 | g.at(x, y, z - 3) << 8
        | g.at(x, y - 2, z + 1) << 9 | g.at(x, y - 2, z - 1) << 10,
      near | inside << 3 | (level > 0) << 7,
      near | count << 3,
      near | (x & 7) << 3 | (y & 7) << 6 | (z & 7) << 9,
    };
    here = c.bit(here, contexts, 6, 65 + near);
  }
}
c.end();
totals[0] = c.at;
"""


@lru_cache
def _tables() -> tuple[Tensor, Tensor, Tensor]:
    """Logits of probabilities, probabilities of logits, and how far a context moves to the n-th answer.

    In decimal arithmetic, which rounds correctly: a processor's exponential may differ in its last bit.
    """
    with localcontext() as context:
        context.prec = 30
        stretch = []
        for i in range(4096):
            p = (Decimal(i) + Decimal("0.5")) / 4096
            stretch.append(int((_ONE * (p / (1 - p)).ln()).to_integral_value()))
        squash = []
        for logit in range(-2047, 2048):
            p = int((65536 / (1 + (-Decimal(logit) / _ONE).exp())).to_integral_value())
            squash.append(min(max(p, 24), 65536 - 24))
    rates = [int(65536 * 2 // (2 * n + 3)) for n in range(_LIMIT + 1)]
    as_int = {"dtype": torch.int32}
    return torch.tensor(stretch, **as_int), torch.tensor(squash, **as_int), torch.tensor(rates, **as_int)


def _text(body: str) -> str:
    return (_CODER + body).replace("SHIFT", "16").replace("LIMIT", str(_LIMIT))


_OWN = {"stretch": "const int", "squash": "const int", "rates": "const int", "slots": "int", "weights": "int"}
_STREAM = {"bytes": "unsigned char", "totals": "double"}


@lru_cache
def _numbers() -> Native:
    tensors = {**_OWN, **_STREAM, "values": "short", "coded": "const unsigned char"}
    names = ("n_bytes", "decoding", "n_entries", "n_features", "row", "plane")
    return Native("", _text(_NUMBERS), tensors, {name: "long long" for name in names})


@lru_cache
def _cells() -> Native:
    tensors = {**_OWN, **_STREAM, "cells": "unsigned char", "blocks": "unsigned char"}
    return Native(
        "", _text(_CELLS), tensors, {n: "long long" for n in ("n_bytes", "decoding", "n_levels", "resolution")}
    )


class Coder:
    """What has been learnt so far: who reads must read the same things, in the order in which they were written."""

    def __init__(self) -> None:
        self._slots = torch.full((_SLOTS,), -(2**31), dtype=torch.int32)  # one half, of no answers
        self._weights = torch.full((_WEIGHTS,), _FIRST_WEIGHT, dtype=torch.int32)

    def write_numbers(
        self, values: Int16[Tensor, "n f"], coded: Bool[Tensor, " n"], strides: tuple[int, int] = (0, 0)
    ) -> bytes:
        """Whole numbers from -2047 to 2047, those of the rows that are ``coded``; the others are 0 and not written.

        ``strides`` are how many rows before one its neighbours along two more axes are; 0 where it has none.
        """
        stream = torch.empty(3 * values.numel() + 64, dtype=torch.uint8)
        return self._run(
            _numbers(), stream, False, [values * coded[:, None], coded.to(torch.uint8)], [*values.shape, *strides]
        )

    def read_numbers(
        self, stream: bytes, coded: Bool[Tensor, " n"], n_features: int, strides: tuple[int, int] = (0, 0)
    ) -> Int16[Tensor, "n f"]:
        """The inverse of `write_numbers`; of bytes that were not written so, any numbers."""
        values = torch.zeros(len(coded), n_features, dtype=torch.int16)
        self._run(_numbers(), _tensor(stream), True, [values, coded.to(torch.uint8)], [*values.shape, *strides])
        return values

    def write_cells(self, occupied: Bool[Tensor, "levels r r r"]) -> bytes:
        """Occupied cells of nested cubes, each twice as wide as the one before; r is a multiple of 8."""
        n_levels, r = occupied.shape[:2]
        cells = occupied.to(torch.uint8).contiguous()
        blocks = cells.view(n_levels, r // BLOCK, BLOCK, r // BLOCK, BLOCK, r // BLOCK, BLOCK).amax((2, 4, 6))
        stream = torch.empty(cells.numel() + 64, dtype=torch.uint8)
        return self._run(_cells(), stream, False, [cells, blocks.contiguous()], [n_levels, r])

    def read_cells(self, stream: bytes, n_levels: int, resolution: int) -> Bool[Tensor, "levels r r r"]:
        """The inverse of `write_cells`."""
        cells = torch.zeros(n_levels, *[resolution] * 3, dtype=torch.uint8)
        blocks = torch.zeros(n_levels * (resolution // BLOCK) ** 3, dtype=torch.uint8)
        self._run(_cells(), _tensor(stream), True, [cells, blocks], [n_levels, resolution])
        return cells.bool()

    def _run(self, kernel: Native, stream: Tensor, decoding: bool, tensors: list[Tensor], numbers: list[int]) -> bytes:
        totals = torch.zeros(1, dtype=torch.float64)
        own = [*_tables(), self._slots, self._weights, stream, totals]
        kernel([*own, *tensors], [len(stream), int(decoding), *numbers])
        return b"" if decoding else stream[: int(totals[0])].numpy().tobytes()


def _tensor(stream: bytes) -> UInt8[Tensor, " n"]:
    return torch.frombuffer(bytearray(stream or b"\0"), dtype=torch.uint8)
