"""Dense layers on rows of numbers, as C++ text for one CPU core: the network part of a kernel that holds whole rays.

A row holds all activations of one sample, layer after layer, each padded to a multiple of `PAD` numbers, so that one
pointer and one stride serve every layer. Numbers are bfloat16 where the processor multiplies pairs of them in hardware
(``dpbf16ps``: c += a0 b0 + a1 b1 for 16 columns at once) and float32 elsewhere; sums are always float32. Weights are
rounded and laid out once a launch as ``[k / P][n][P]``, P numbers in 32 bits, so that a product is P inputs of a row,
repeated, times a register of weights.

torch's matrix products run at the same rate. What is won lies between them: the next layer reads what is still in the
cache, nothing is converted, and no interpreter runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

PAD = 16
"""Rows of a layer are padded to a multiple of this many numbers."""
TILE = 64
"""Rows that go through all layers of a backward pass together."""


def padded(n: int) -> int:
    """The next multiple of `PAD`."""
    return -(-n // PAD) * PAD


@dataclass(frozen=True)
class Layer:
    """One matrix of a network, (n_out, n_in): where its inputs and outputs stand in a row, and it in the weights."""

    n_in: int
    n_out: int
    source: int
    """First column of the inputs in a row."""
    target: int
    """First column of the outputs."""
    weights: int
    """First number among all weights, as the optimiser has them, matrix after matrix."""
    packed: int
    """The same among the padded ones."""
    relu: bool
    """Whether only the positive part goes on."""
    masked: bool
    """Whether the inputs are such positive parts, so that their gradient ends where they are 0."""
    n_differentiated: int
    """Inputs, the first ones, that hand a gradient back."""

    @property
    def n_packed(self) -> int:
        """Numbers of the padded matrix."""
        return padded(self.n_in) * padded(self.n_out)


_PRELUDE = """
typedef WORD word;
#if defined(__AVX512F__)
enum { L = 16, MR = 8, SUMS = 16 };
#elif defined(__AVX__)
enum { L = 8, MR = 4, SUMS = 8 };
#else
enum { L = 4, MR = 8, SUMS = 16 };
#endif
enum { P = 4 / sizeof(word), TILE = TILE_, STRIDE = STRIDE_ };
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("unroll")
typedef float vec __attribute__((vector_size(4 * L), aligned(4)));
typedef word pack __attribute__((vector_size(4 * L), aligned(4)));
typedef word half __attribute__((vector_size(sizeof(word) * L), aligned(sizeof(word))));
struct op {
  INLINE pack splat(const word* a) {
    typedef int same __attribute__((may_alias));
    typedef int ints __attribute__((vector_size(4 * L)));
    return (pack)(ints{} + *(const same*)a);
  }
  INLINE vec dot(vec c, pack a, pack b) { DOT }
  INLINE vec load(const word* a) { return __builtin_convertvector(*(const half*)a, vec); }
  INLINE void store(word* a, vec v) { *(half*)a = __builtin_convertvector(v, half); }
  // acc[r][v] = row r of a times register v of the columns of w, a packed matrix of n_k inputs and n_columns outputs.
  INLINE void product(vec (*acc)[2], const word* const* a, const word* w, int n_k, int n_columns, int nv) {
    for (int k = 0; k < n_k; k += P, w += n_columns * P) {
      pack weight[2];
      UNROLL for (int v = 0; v < nv; ++v) weight[v] = *(const pack*)(w + v * L * P);
      UNROLL for (int r = 0; r < MR; ++r) {
        const pack x = splat(a[r] + k);
        UNROLL for (int v = 0; v < nv; ++v) acc[r][v] = dot(acc[r][v], x, weight[v]);
      }
    }
  }
  // Interleave P rows of n numbers, zeros for those that are missing: a register of the result spans P rows.
  INLINE void weave(const word* a, int stride, int n_rows, int n, word* out) {
    if (P == 1 || n_rows < P) {
      for (int p = 0; p < P; ++p)
        for (int k = 0; k < n; ++k) out[k * P + p] = p < n_rows ? a[p * stride + k] : (word)0.0f;
      return;
    }
    typedef unsigned short narrow __attribute__((vector_size(2 * L), aligned(2)));
    typedef unsigned int wide __attribute__((vector_size(4 * L), aligned(4)));
    for (int k = 0; k < n; k += L) {
      const narrow x = *(const narrow*)(a + k), y = *(const narrow*)(a + stride + k);
      *(wide*)(out + k * P) = __builtin_convertvector(x, wide) | (__builtin_convertvector(y, wide) << 16);
    }
  }
};
"""

_LAYER = """
struct layer_INDEX_ {
  enum { KT = KT_, NT = NT_, K = K_, N = N_, IN = IN_, OUT = OUT_, KX = KX_ };
  // Weights of this layer, rounded and padded: for the forward pass, and for the backward pass.
  static void prepare(const float* all, word* forward, word* backward) {
    for (int n = 0; n < N; ++n)
      for (int k = 0; k < K; ++k) {
        const word w = (word)(n < NT && k < KT ? all[WEIGHTS_ + n * KT + k] : 0.0f);
        forward[PACKED_ + (k / P * N + n) * P + k % P] = w;
        backward[PACKED_ + (n / P * K + k) * P + n % P] = w;
      }
  }
  // Outputs of n rows; the sums before rounding go to raw (n, N) where it is given.
  INLINE void forward(word* rows, int n, const word* packed, float* raw) {
    enum { NV = N / L % 2 ? 1 : 2 };
    for (int i = 0; i < n; i += MR) {
      const word* a[MR];
      for (int r = 0; r < MR; ++r) a[r] = rows + (i + r < n ? i + r : n - 1) * STRIDE + IN;
      for (int c = 0; c < N; c += NV * L) {
        vec acc[MR][2] = {};
        op::product(acc, a, packed + PACKED_ + c * P, K, N, NV);
        UNROLL for (int r = 0; r < MR; ++r)
          UNROLL for (int v = 0; v < NV; ++v) {
            const int row = i + r < n ? i + r : n - 1;
            vec y = acc[r][v];
            if (RELU_) y = y > 0.0f ? y : vec{};
            if (raw) *(vec*)(raw + row * N + c + v * L) = y;
            op::store(rows + row * STRIDE + OUT + c + v * L, y);
          }
      }
    }
  }
  // From g (n, N), the gradient of the outputs: add to that of the weights, and write that of the inputs to gx (n, KX).
  INLINE void backward(const word* rows, int n, const word* g, int stride, const word* packed, float* gw, word* gx) {
    enum { NV = KX / L % 2 ? 1 : 2, KV = K / L % 4 ? (K / L % 2 ? 1 : 2) : SUMS / 4, OB = SUMS / KV };
    if (gx) for (int i = 0; i < n; i += MR) {
      const word* a[MR];
      for (int r = 0; r < MR; ++r) a[r] = g + (i + r < n ? i + r : n - 1) * stride;
      for (int c = 0; c < KX; c += NV * L) {
        vec acc[MR][2] = {};
        op::product(acc, a, packed + PACKED_ + c * P, N, K, NV);
        UNROLL for (int r = 0; r < MR; ++r)
          UNROLL for (int v = 0; v < NV; ++v) {
            const int row = i + r < n ? i + r : n - 1;
            vec y = acc[r][v];
            if (MASKED_) y = op::load(rows + row * STRIDE + IN + c + v * L) > 0.0f ? y : vec{};
            op::store(gx + row * KX + c + v * L, y);
          }
      }
    }
    alignas(64) word xs[TILE * K], gs[TILE * N];
    const int n_units = (n + P - 1) / P;
    for (int u = 0; u < n_units; ++u) {
      op::weave(rows + u * P * STRIDE + IN, STRIDE, n - u * P, K, xs + u * P * K);
      op::weave(g + u * P * stride, stride, n - u * P, N, gs + u * P * N);
    }
    for (int o = 0; o < N; o += OB)
      for (int c = 0; c < K; c += KV * L) {
        float* sums = gw + PACKED_ + o * K + c;
        vec acc[OB][KV];
        UNROLL for (int q = 0; q < OB; ++q)
          UNROLL for (int v = 0; v < KV; ++v) acc[q][v] = *(const vec*)(sums + q * K + v * L);
        for (int u = 0; u < n_units; ++u) {
          pack x[KV];
          UNROLL for (int v = 0; v < KV; ++v) x[v] = *(const pack*)(xs + (u * K + c + v * L) * P);
          UNROLL for (int q = 0; q < OB; ++q) {
            const pack y = op::splat(gs + (u * N + o + q) * P);
            UNROLL for (int v = 0; v < KV; ++v) acc[q][v] = op::dot(acc[q][v], y, x[v]);
          }
        }
        UNROLL for (int q = 0; q < OB; ++q)
          UNROLL for (int v = 0; v < KV; ++v) *(vec*)(sums + q * K + v * L) = acc[q][v];
      }
  }
  // Add the gradient's padded sums to the weights' own gradient.
  static void collect(const float* gw, float* all) {
    for (int n = 0; n < NT; ++n)
      for (int k = 0; k < KT; ++k) all[WEIGHTS_ + n * KT + k] += gw[PACKED_ + n * K + k];
  }
};
"""

_FORMATS = {
    "bfloat16": ("__bf16", "return (vec)__builtin_ia32_dpbf16ps_512(c, a, b);"),
    "float32": ("float", "return c + a * b;"),
}


def dense_text(layers: Sequence[Layer], stride: int, word: str) -> str:
    """C++ text, for the head of a function, that defines ``layer_0``, ``layer_1``, ... over rows of ``stride`` numbers.

    ``word`` is "bfloat16" (only for a processor with AVX512_BF16) or "float32".
    """
    name, dot = _FORMATS[word]
    text = _PRELUDE.replace("WORD", name).replace("DOT", dot).replace("TILE_", str(TILE))
    text = text.replace("STRIDE_", str(stride))
    for i, layer in enumerate(layers):
        n, k, kx = (padded(size) for size in (layer.n_out, layer.n_in, layer.n_differentiated))
        constants = {
            "WEIGHTS_": layer.weights,
            "MASKED_": int(layer.masked),
            "PACKED_": layer.packed,
            "INDEX_": i,
            "RELU_": int(layer.relu),
            "OUT_": layer.target,
            "IN_": layer.source,
            "KT_": layer.n_in,
            "NT_": layer.n_out,
            "KX_": kx,
            "K_": k,
            "N_": n,
        }
        one = _LAYER
        for key, value in constants.items():
            one = one.replace(key, str(value))
        text += one
    return text
