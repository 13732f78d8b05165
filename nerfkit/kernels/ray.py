"""The course of one ray as C++ text, for one CPU core: what `raycast` puts together and compiles.

The names in capitals are constants of a field's networks and texts of other pieces, which `raycast` fills in.
"""

VECTORS = """
enum { B = BLOCK_, G = B / 2, V = VALUES_, F = FEATURES };
typedef float floats_g __attribute__((vector_size(4 * G), aligned(4)));
typedef int ints_g __attribute__((vector_size(4 * G), aligned(4)));
typedef float entry __attribute__((vector_size(4 * F), aligned(4)));
typedef STORED stored __attribute__((vector_size(sizeof(STORED) * F), aligned(sizeof(STORED))));
typedef word narrow __attribute__((vector_size(sizeof(word) * F), aligned(sizeof(word))));
struct lanes {
  INLINE float clamp(float x, float low, float high) { return x < low ? low : x > high ? high : x; }
  INLINE floats clamp(floats x, float low, float high) {
    x = x < low ? floats{} + low : x;
    return x > high ? floats{} + high : x;
  }
  // exp(x) by 2^n times a polynomial (relative error 3e-7) for x in [-87, 88], clamped to that.
  INLINE floats exp(floats x) {
    const floats y = clamp(x, -87.0f, 88.0f) * 1.44269504f;
    const ints n = __builtin_convertvector(y + (y < 0.0f ? floats{} - 0.5f : floats{} + 0.5f), ints);
    const floats f = (y - __builtin_convertvector(n, floats)) * 0.69314718f;
    floats p = f * (1.0f / 720.0f) + 1.0f / 120.0f;
    p = p * f + 1.0f / 24.0f; p = p * f + 1.0f / 6.0f; p = p * f + 0.5f; p = p * f + 1.0f; p = p * f + 1.0f;
    return p * (floats)((n + 127) << 23);
  }
};
"""

# Where ray r enters the unit cube, and where it leaves.
ENTER = """
  const float* o = rays_o + 3 * r;
  const float* d = rays_d + 3 * r;
  float inverse[3], t = near_plane, t_max = far_plane;
  for (int c = 0; c < 3; ++c) {
    inverse[c] = 1.0f / (d[c] < 1e-9f && d[c] > -1e-9f ? 1e-9f : d[c]);
    const float a = -o[c] * inverse[c], b = a + inverse[c];
    t = t > (a < b ? a : b) ? t : (a < b ? a : b);
    t_max = t_max < (a < b ? b : a) ? t_max : (a < b ? b : a);
  }
  t += jitter[r] * lanes::clamp(t * cone_angle, min_step, max_step);
"""

RAYS = """
EACH_LAYER(layer_INDEX::prepare(weights, packed, packed + N_PACKED);)
const word* W = packed;
double loss = 0.0, n_samples = 0.0;
size_t at = 0;
for (int r = 0; r < n_rays; ++r) {
  ENTER
  float harmonics[16], trans = 1.0f, color[SHOWN] = {}, sum = 0.0f;
  HARMONICS
  int total = 0, next = FIRST;
  bool open = true;
  while (open && total < max_samples && at + B <= (size_t)capacity) {
    alignas(64) float t_starts[B], step[B];
    int cells[B], n = 0;
    STEPS
    if (n == 0) break;
    word* R = rows + at * STRIDE;
    float* X = positions + at * 3;
    float* values_at = values + at * V;
    int reached = 0;
    STEP
    open = reached == n && trans > early_stop;
    total += reached;
    if (keep) at += reached;
  }
  packed_info[2 * r] = keep ? at - total : 0;
  packed_info[2 * r + 1] = total;
  for (int c = 0; c < 3; ++c) color[c] += trans * background[3 * r + c];
  for (int c = 0; c < SHOWN; ++c) rgb[SHOWN * r + c] = color[c];
  if (learning) {
    for (int c = 0; c < 3; ++c) {
      const float e = color[c] - truth[3 * r + c], size = e < 0.0f ? -e : e;
      loss += factor * (size < delta ? 0.5f * e * e : delta * (size - 0.5f * delta));
      g_rgb[SHOWN * r + c] = factor * lanes::clamp(e, -delta, delta);
    }
    for (int c = 3; c < SHOWN; ++c) g_rgb[SHOWN * r + c] = 0.0f;
  }
  opacity[r] = 1.0f - trans;
  t_sum[r] = sum;
  n_samples += total;
}
totals[0] = n_samples; totals[1] = loss;
"""

# Spherical harmonics of the direction, as `shade.spherical_harmonics` has them.
HARMONICS = """
  {
    const float x = d[0], y = d[1], z = d[2], xy = x * y, yz = y * z, xz = x * z, x2 = x * x, y2 = y * y, z2 = z * z;
    const float all[16] = {
        0.28209479177387814f, -0.48860251190291987f * y, 0.48860251190291987f * z, -0.48860251190291987f * x,
        1.0925484305920792f * xy, -1.0925484305920792f * yz, 0.94617469575756f * z2 - 0.31539156525252f,
        -1.0925484305920792f * xz, 0.5462742152960396f * (x2 - y2), 0.5900435899266435f * y * (y2 - 3.0f * x2),
        2.890611442640554f * xy * z, 0.4570457994644657f * y * (1.0f - 5.0f * z2),
        0.3731763325901154f * z * (5.0f * z2 - 3.0f), 0.4570457994644657f * x * (1.0f - 5.0f * z2),
        1.445305721320277f * z * (x2 - y2), 0.5900435899266435f * x * (3.0f * y2 - x2)};
    for (int i = 0; i < 16; ++i) harmonics[i] = all[i];
  }
"""

# Goes on along the ray, G steps at a time, until it has met at least G occupied ones (so less than B) or its end.
MARCH = """
    while (n < G && t < t_max) {
      if (n_levels == 1) {
        // From an empty block of 4^3 cells the ray leaps to the first step behind all that are empty around it.
        const float side = (float)(res / 4);
        float u[3], cell[3];
        for (int c = 0; c < 3; ++c) {
          u[c] = (o[c] + (t + 0.5f * min_step) * d[c]) * side;
          cell[c] = (float)(int)lanes::clamp(u[c], 0.0f, side - 1.0f);
        }
        const int radius = clear[(int)((cell[0] * side + cell[1]) * side + cell[2])];
        if (radius > 0) {
          float leap = (t_max - t) * side;
          for (int c = 0; c < 3; ++c) {
            const float to = (cell[c] + (d[c] > 0.0f ? radius : 1 - radius) - u[c]) * inverse[c];
            leap = leap < to ? leap : to;
          }
          const int n_steps = (int)(leap / (side * min_step)) + 1;
          t += (n_steps > 1 ? n_steps : 1) * min_step;
          continue;
        }
      }
      const floats_g count = {0, 1, 2, 3, 4, 5, 6, 7};
      floats_g ts = t + count * min_step, dt = floats_g{} + min_step;
      if (cone_angle > 0.0f) {
        for (int i = 0; i < G; ++i) {
          const float step = lanes::clamp(t * cone_angle, min_step, max_step);
          ts[i] = t; dt[i] = step; t += step;
        }
      } else t += G * min_step;
      const floats_g middle = ts + 0.5f * dt;
      floats_g x[3], reach = {}, side = floats_g{} + 1.0f;
      ints_g index = ints_g{} + (n_levels - 1);
      for (int c = 0; c < 3; ++c) {
        x[c] = o[c] + middle * d[c] - 0.5f;
        const floats_g size = x[c] < 0.0f ? -x[c] : x[c];
        reach = reach > size ? reach : size;
      }
      for (int k = 1; k < n_levels; ++k) {
        const ints_g inner = (reach < 0.25f * side) & (0.5f * side >= dt * (float)res);
        side = inner ? 0.5f * side : side;
        index += inner;
      }
      for (int c = 0; c < 3; ++c) {
        ints_g cell = __builtin_convertvector((x[c] + 0.5f * side) * ((float)res / side), ints_g);
        cell = cell < 0 ? ints_g{} : cell;
        index = index * res + (cell > res - 1 ? ints_g{} + (res - 1) : cell);
      }
      for (int i = 0; i < G; ++i) {
        t_starts[n] = ts[i];
        step[n] = dt[i];
        cells[n] = index[i];
        n += (bits[index[i] >> 5] >> (index[i] & 31)) & (ts[i] < t_max);
      }
    }
"""

# Goes on along a ray whose samples were found beforehand.
LISTED = """
    for (const int end = listed[2 * r] + listed[2 * r + 1]; n < B && next < end; ++n, ++next) {
      t_starts[n] = listed_starts[next];
      step[n] = listed_ends[next] - t_starts[n];
    }
"""

# Takes the n samples through the field, and those that the ray reaches into its colour.
STEP = """
    alignas(64) float raw[B * WIDEST_OUT], sigma[B], through[B], middle[B], shade[3][B];
    floats x[3];
    {
      for (int i = n; i < B; ++i) { t_starts[i] = t_starts[n - 1]; step[i] = step[n - 1]; }
      *(floats*)middle = *(const floats*)t_starts + 0.5f * *(const floats*)step;
      for (int c = 0; c < 3; ++c) x[c] = lanes::clamp(o[c] + *(floats*)middle * d[c], 0.0f, 1.0f);
      contraction::of(x, half_side);
      for (int i = 0; i < n; ++i) for (int c = 0; c < 3; ++c) X[3 * i + c] = x[c][i];
    }
    if (noting) for (int i = 0; i < n; ++i) __builtin_prefetch(window + cells[i], 1);

    // The encoding: a level's entries are asked for while those of the level before are blended.
    level_cells found[2];
    for (int level = 0; level <= LEVELS; ++level) {
      if (level < LEVELS) {
        level_cells& to = found[level & 1];
        to.find(x, scales[level], offsets + level, resolutions[level]);
        for (int c = 0; c < 8; ++c) for (int i = 0; i < n; ++i) __builtin_prefetch(table + to.corner[c][i]);
      }
      if (level > 0) {
        const level_cells& from = found[(level - 1) & 1];
        word* out = R + (level - 1) * F;
        for (int i = 0; i < n; ++i, out += STRIDE) {
          entry v[8];
          UNROLL for (int c = 0; c < 8; ++c) v[c] = __builtin_convertvector(table[from.corner[c][i]], entry);
          const float wx = from.within[0][i], wy = from.within[1][i], wz = from.within[2][i];
          const entry a = v[0] + wx * (v[1] - v[0]), b = v[2] + wx * (v[3] - v[2]);
          const entry c = v[4] + wx * (v[5] - v[4]), d = v[6] + wx * (v[7] - v[6]);
          const entry e = a + wy * (b - a), f = c + wy * (d - c), g = e + wz * (f - e);
          *(narrow*)out = __builtin_convertvector(g, narrow);
        }
      }
    }
    for (int i = 0; i < n; ++i) for (int c = LEVELS * F; c < ENCODED; ++c) R[i * STRIDE + c] = (word)0.0f;

    DENSITY_LAYERS
    for (int i = 0; i < B; ++i) sigma[i] = raw[(i < n ? i : n - 1) * GEO_PADDED];
    *(floats*)sigma = lanes::exp(lanes::clamp(*(floats*)sigma, -87.0f, MAX_LOG));
    *(floats*)through = lanes::exp(-*(floats*)sigma * *(floats*)step);
    for (; reached < n && trans > early_stop; ++reached) {
      float* v = values_at + reached * V;
      v[0] = middle[reached]; v[1] = step[reached]; v[2] = sigma[reached]; v[3] = trans - trans * through[reached];
      trans *= through[reached];
    }
    if (noting) for (int i = 0; i < n; ++i) {
      // The largest density that rays met in a cell; floats that are not negative compare as integers.
      int* to = (int*)window + cells[i];
      const float met = i < reached ? sigma[i] : 0.0f;
      int value;
      __builtin_memcpy(&value, &met, 4);
      int old = __atomic_load_n(to, __ATOMIC_RELAXED);
      while (old < value && !__atomic_compare_exchange_n(to, &old, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
    }

    for (int i = 0; i < reached; ++i) {
      word* row = R + i * STRIDE + COLOR_IN;
      for (int c = 0; c < N_HARMONICS; ++c) row[N_GEO + c] = (word)harmonics[c];
      for (int c = N_GEO + N_HARMONICS; c < COLOR_PADDED; ++c) row[c] = (word)0.0f;
    }
    if (reached > 0) {
      COLOR_LAYERS
      for (int c = 0; c < 3; ++c) {
        for (int i = 0; i < B; ++i) shade[c][i] = raw[(i < reached ? i : 0) * 16 + c];
        *(floats*)shade[c] = 1.0f / (1.0f + lanes::exp(-*(floats*)shade[c]));
      }
    }
    for (int i = 0; i < reached; ++i) {
      float* v = values_at + i * V;
      for (int c = 0; c < 3; ++c) { v[4 + c] = shade[c][i]; color[c] += v[3] * shade[c][i]; }
      for (int c = 3; c < SHOWN; ++c) color[c] += v[3] * raw[i * 16 + c];
      sum += v[3] * v[0];
    }
"""

BACKWARD = """
const word* W = packed + N_PACKED;
for (int r = 0; r < n_rays; ++r) {
  const int start = packed_info[2 * r], count = packed_info[2 * r + 1];
  const float* g = g_rgb + SHOWN * r;
  const float* back = background + 3 * r;
  float trans = 1.0f - opacity[r];
  // Of all samples and of those behind the one in hand: sums of weights, and of weights times places.
  float all = opacity[r], all_placed = 0.0f, later = 0.0f, later_placed = 0.0f;
  if (distortion > 0.0f) for (int i = start; i < start + count; ++i) {
    const float* v = values + (size_t)i * V;
    all_placed += v[3] * v[0] / (v[0] + halfway);
  }
  float behind = trans * (g[0] * back[0] + g[1] * back[1] + g[2] * back[2] - g_opacity[r]);
  for (int i = start + count - 1; i >= start; --i) {
    const float* v = values + (size_t)i * V;
    const float end = (v[0] + 0.5f * v[1]) / reach;
    word* out = rows + (size_t)i * STRIDE + OUTPUT;
    float q = g[0] * v[4] + g[1] * v[5] + g[2] * v[6] + g_t_sum[r] * v[0];
    for (int c = 3; c < SHOWN; ++c) q += g[c] * (float)out[c];
    if (distortion > 0.0f) {
      const float w = v[3], per = 1.0f / (v[0] + halfway), s = v[0] * per, d = v[1] * halfway * per * per;
      const float earlier = all - later - w, earlier_placed = all_placed - later_placed - w * s;
      q += 2.0f * distortion * (s * (earlier - later) - earlier_placed + later_placed + w * d / 3.0f);
      later += w;
      later_placed += w * s;
    }
    const float near = end < 1.0f ? end * end : 1.0f;
    g_log_sigmas[i] = near * v[1] * v[2] * (trans * q - behind);
    for (int c = 0; c < 16; ++c) {
      const float slope = c < 3 ? v[4 + c] * (1.0f - v[4 + c]) : 1.0f;
      out[c] = (word)(c < SHOWN ? near * v[3] * g[c] * slope : 0.0f);
    }
    behind += v[3] * q;
    trans += v[3];
  }
}
alignas(64) word g[2][TILE * WIDEST];
for (int at = 0; at < n_samples; at += TILE) {
  const int n = n_samples - at < TILE ? n_samples - at : TILE;
  const word* R = rows + (size_t)at * STRIDE;
  word* to = g_encoded + (size_t)at * ENCODED;
  BACKWARD_LAYERS
}
EACH_LAYER(layer_INDEX::collect(sums, g_weights);)
"""

# Chebyshev distance of each block of 4^3 cells to the nearest that is occupied, 0 for such a one, at most 255: there
# and back, each block is one further than the nearest of the neighbours seen before it (Rosenfeld and Pfaltz 1968).
CLEARANCE = """
const int n = res / 4, total = n * n * n;
for (int i = 0; i < total; ++i) {
  const int x = i / (n * n) * 4, y = i / n % n * 4, z = i % n * 4;
  int found = 0;
  for (int row = 0; row < 16; ++row) {
    const int cell = ((x + row / 4) * res + y + row % 4) * res + z;
    found |= bits[cell >> 5] >> (cell & 31) & 15;
  }
  clear[i] = found ? 0 : 255;
}
for (int way = 1; way >= -1; way -= 2) {
  for (int k = 0; k < total; ++k) {
    const int i = way > 0 ? k : total - 1 - k, x = i / (n * n), y = i / n % n, z = i % n;
    int least = clear[i];
    for (int step = 0; step < 13 && least > 0; ++step) {
      const int u = x + way * (step / 9 - 1), v = y + way * (step / 3 % 3 - 1), w = z + way * (step % 3 - 1);
      if (u < 0 || v < 0 || w < 0 || u >= n || v >= n || w >= n) continue;
      const int further = clear[(u * n + v) * n + w] + 1;
      least = least < further ? least : further;
    }
    clear[i] = least;
  }
}
"""
