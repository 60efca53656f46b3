/* Rows and planes for cores with the DSP extension (Cortex-M4, M7, M33): two products an instruction.
 *
 * Values are widened once for each patch, in the order that SXTB16 leaves (0, 2, 1, 3), so that weights can be widened in
 * the inner loop as they lie in flash. */
#include "rows.h"

#ifdef ED_ROWS_DSP

#include <arm_acle.h>
#include <stddef.h>

#include "arithmetic.h"

#define LOW_HALVES 0xF0F0F0F0u
#define INLINE inline __attribute__((always_inline))

static inline uint32_t even(uint32_t word) { return (uint32_t)__sxtb16(word); }

/* The compiler knows no single instruction for the rotated form. */
static inline uint32_t odd(uint32_t word) {
  uint32_t pair;
  __asm__("sxtb16 %0, %1, ror #8" : "=r"(pair) : "r"(word));
  return pair;
}

static inline int32_t mac(uint32_t a, uint32_t b, int32_t sum) { return __smlad((int16x2_t)a, (int16x2_t)b, sum); }

/* ed_scaled_plain by SMMULR, which multiplies and rounds at once. */
static INLINE int32_t scaled_plain(int32_t value, int32_t multiplier, int32_t half, int32_t right_shift) {
  int32_t high;
  __asm__("smmulr %0, %1, %2" : "=r"(high) : "r"(value * 2), "r"(multiplier));
  return (high + (high >> 31) + half) >> right_shift;
}

/* How sums become outputs: of one row, or of one channel. */
typedef struct {
  int32_t multiplier, right_shift, half, zero, low, high;
  int8_t plain, wide; /* wide: the whole range of 8 bits is allowed */
} ending;

static INLINE int8_t end(ending e, int32_t sum) {
  if (e.plain && e.wide) return (int8_t)__ssat(scaled_plain(sum, e.multiplier, e.half, e.right_shift) + e.zero, 8);
  const int32_t value = e.plain ? scaled_plain(sum, e.multiplier, e.half, e.right_shift)
                                : ed_scaled(sum, e.multiplier, e.right_shift);
  return (int8_t)ed_clamp(value + e.zero, e.low, e.high);
}

static INLINE ending ending_of(int32_t multiplier, int32_t right_shift, int8_t rounding, int8_t zero, int8_t low, int8_t high) {
  const int8_t plain = rounding == ED_ROUND_PLAIN;
  const ending found = {multiplier, right_shift, plain ? (1 << right_shift) >> 1 : 0, zero, low, high, plain,
                        low == -128 && high == 127};
  return found;
}

static INLINE ending ending_of_row(const ed_matrix *m, int32_t row) {
  return ending_of(m->multiplier[row], m->right_shift[row], m->rounding, m->zero, m->low, m->high);
}

static INLINE int8_t finish(const ed_matrix *matrix, int32_t row, int32_t sum) {
  if (matrix->rounding == ED_ROUND_ONCE) {
    return ed_finish_once(matrix->multiplier + row, matrix->multiplier_low + row, matrix->right_shift[row], sum,
                          matrix->zero, matrix->low, matrix->high);
  }
  return end(ending_of_row(matrix, row), sum);
}

static INLINE void finish_two(const ed_matrix *matrix, int32_t row, int32_t a, int32_t b, int8_t *first, int8_t *second) {
  if (matrix->rounding == ED_ROUND_ONCE) {
    first[row] = finish(matrix, row, a);
    second[row] = finish(matrix, row, b);
    return;
  }
  const ending e = ending_of_row(matrix, row);
  first[row] = end(e, a);
  second[row] = end(e, b);
}

static void widen(const int8_t *first, const int8_t *second, int32_t groups, uint32_t *cells) {
  for (; groups > 0; --groups) {
    const uint32_t x = ed_word(first);
    first += 4;
    *cells++ = even(x);
    *cells++ = odd(x);
    if (second != NULL) {
      const uint32_t y = ed_word(second);
      second += 4;
      *cells++ = even(y);
      *cells++ = odd(y);
    }
  }
}

/* The products of `groups` groups of four values: two rows by two patches, 8 double products for 2 loads of weights and 4
 * of values. The registers that it needs are all there are, which the compiler does not manage by itself. */
static INLINE void products(const int8_t *v, const int8_t *w, const uint32_t *cells, int32_t groups, int32_t sum[4]) {
  int32_t a = sum[0], b = sum[1], c = sum[2], d = sum[3];
  const uint32_t *const last = cells + 4 * groups;
#if defined(__OPTIMIZE__) && !defined(__PIC__)
  if (groups > 0) {
    uint32_t p, q, x0, x1, y0, y1;
#define ONE_GROUP                         \
  "ldr %[p], [%[v]], #4\n"                \
  "ldrd %[x0], %[x1], [%[cells]], #8\n"   \
  "ldrd %[y0], %[y1], [%[cells]], #8\n"   \
  "sxtb16 %[q], %[p]\n"                   \
  "sxtb16 %[p], %[p], ror #8\n"           \
  "smlad %[a], %[q], %[x0], %[a]\n"       \
  "smlad %[b], %[q], %[y0], %[b]\n"       \
  "smlad %[a], %[p], %[x1], %[a]\n"       \
  "smlad %[b], %[p], %[y1], %[b]\n"       \
  "ldr %[p], [%[w]], #4\n"                \
  "sxtb16 %[q], %[p]\n"                   \
  "sxtb16 %[p], %[p], ror #8\n"           \
  "smlad %[c], %[q], %[x0], %[c]\n"       \
  "smlad %[d], %[q], %[y0], %[d]\n"       \
  "smlad %[c], %[p], %[x1], %[c]\n"       \
  "smlad %[d], %[p], %[y1], %[d]\n"
    if (groups & 1) {
      __asm__ volatile(ONE_GROUP
                       : [a] "+r"(a), [b] "+r"(b), [c] "+r"(c), [d] "+r"(d), [v] "+r"(v), [w] "+r"(w),
                         [cells] "+r"(cells), [p] "=&r"(p), [q] "=&r"(q), [x0] "=&r"(x0), [x1] "=&r"(x1),
                         [y0] "=&r"(y0), [y1] "=&r"(y1)
                       :
                       : "memory");
    }
    if (cells != last) {
      __asm__ volatile("1:\n" ONE_GROUP ONE_GROUP
                       "cmp %[cells], %[last]\n"
                       "bne 1b\n"
                       : [a] "+r"(a), [b] "+r"(b), [c] "+r"(c), [d] "+r"(d), [v] "+r"(v), [w] "+r"(w),
                         [cells] "+r"(cells), [p] "=&r"(p), [q] "=&r"(q), [x0] "=&r"(x0), [x1] "=&r"(x1),
                         [y0] "=&r"(y0), [y1] "=&r"(y1)
                       : [last] "r"(last)
                       : "cc", "memory");
    }
  }
#else
  for (; cells != last; cells += 4, v += 4, w += 4) {
    const uint32_t p = ed_word(v), q = ed_word(w);
    a = mac(odd(p), cells[1], mac(even(p), cells[0], a));
    b = mac(odd(p), cells[3], mac(even(p), cells[2], b));
    c = mac(odd(q), cells[1], mac(even(q), cells[0], c));
    d = mac(odd(q), cells[3], mac(even(q), cells[2], d));
  }
#endif
  sum[0] = a, sum[1] = b, sum[2] = c, sum[3] = d;
}

static INLINE void two_by_two(const ed_matrix *matrix, int32_t row, const uint32_t *cells, const int8_t *first,
                              const int8_t *second, int8_t *out_first, int8_t *out_second) {
  const int8_t *v = matrix->weights + row * matrix->stride;
  const int8_t *w = v + matrix->stride;
  int32_t sum[4] = {matrix->bias[row], matrix->bias[row], matrix->bias[row + 1], matrix->bias[row + 1]};
  products(v, w, cells, matrix->depth >> 2, sum);
  for (int32_t k = matrix->depth & ~3; k < matrix->depth; ++k) {
    const int32_t x = first[k], y = second[k];
    sum[0] += v[k] * x;
    sum[1] += v[k] * y;
    sum[2] += w[k] * x;
    sum[3] += w[k] * y;
  }
  finish_two(matrix, row, sum[0], sum[1], out_first, out_second);
  finish_two(matrix, row + 1, sum[2], sum[3], out_first, out_second);
}

/* The same with rows of 4 bits: sums are 16 times too large until the end, because weights stay in the high halves. */
static INLINE void two_by_two_packed(const ed_matrix *matrix, int32_t row, const uint32_t *cells, const int8_t *first,
                                     const int8_t *second, int8_t *out_first, int8_t *out_second) {
  const int8_t *v = matrix->weights + row * matrix->stride;
  const int8_t *w = v + matrix->stride;
  int32_t a = 0, b = 0, c = 0, d = 0;
  const uint32_t *const last = cells + matrix->depth / 8 * 8;
  while (cells != last) {
    const uint32_t p = ed_word(v), q = ed_word(w);
    v += 4;
    w += 4;
    for (int half = 0; half < 2; ++half) {
      const uint32_t x0 = cells[0], x1 = cells[1], y0 = cells[2], y1 = cells[3];
      cells += 4;
      const uint32_t of_v = (half ? p : p << 4) & LOW_HALVES, of_w = (half ? q : q << 4) & LOW_HALVES;
      uint32_t pair = even(of_v);
      a = mac(pair, x0, a);
      b = mac(pair, y0, b);
      pair = odd(of_v);
      a = mac(pair, x1, a);
      b = mac(pair, y1, b);
      pair = even(of_w);
      c = mac(pair, x0, c);
      d = mac(pair, y0, d);
      pair = odd(of_w);
      c = mac(pair, x1, c);
      d = mac(pair, y1, d);
    }
  }
  a = matrix->bias[row] + (a >> 4);
  b = matrix->bias[row] + (b >> 4);
  c = matrix->bias[row + 1] + (c >> 4);
  d = matrix->bias[row + 1] + (d >> 4);
  const int32_t done = matrix->depth / 8 * 8;
  for (int32_t k = done; k < matrix->depth; ++k) {
    const int32_t x = first[k], y = second[k], p = ed_nibble(v, k - done), q = ed_nibble(w, k - done);
    a += p * x;
    b += p * y;
    c += q * x;
    d += q * y;
  }
  finish_two(matrix, row, a, b, out_first, out_second);
  finish_two(matrix, row + 1, c, d, out_first, out_second);
}

/* One row, one patch; `step`: words from one group of the patch to the next. */
static INLINE int8_t one(const ed_matrix *matrix, int32_t row, const uint32_t *cells, int32_t step, const int8_t *patch) {
  const int8_t *v = matrix->weights + row * matrix->stride;
  int32_t sum = 0, k = 0;
  if (matrix->bits == 8) {
    for (; k + 4 <= matrix->depth; k += 4, v += 4, cells += step) {
      const uint32_t weights = ed_word(v);
      sum = mac(even(weights), cells[0], sum);
      sum = mac(odd(weights), cells[1], sum);
    }
    for (; k < matrix->depth; ++k) sum += *v++ * patch[k];
  } else {
    for (; k + 8 <= matrix->depth; k += 8, v += 4, cells += 2 * step) {
      const uint32_t packed = ed_word(v), low = (packed << 4) & LOW_HALVES, high = packed & LOW_HALVES;
      sum = mac(even(low), cells[0], sum);
      sum = mac(odd(low), cells[1], sum);
      sum = mac(even(high), cells[step], sum);
      sum = mac(odd(high), cells[step + 1], sum);
    }
    sum >>= 4;
    const int32_t done = k;
    for (; k < matrix->depth; ++k) sum += ed_nibble(v, k - done) * patch[k];
  }
  return finish(matrix, row, matrix->bias[row] + sum);
}

/* Four rows by one patch, for dense layers: every value that is loaded is used four times. */
static INLINE void four_by_one(const ed_matrix *matrix, int32_t row, const uint32_t *cells, const int8_t *patch, int8_t *out) {
  const int8_t *v = matrix->weights + row * matrix->stride;
  const int32_t stride = matrix->stride;
  int32_t a = matrix->bias[row], b = matrix->bias[row + 1], c = matrix->bias[row + 2], d = matrix->bias[row + 3];
  const uint32_t *const last = cells + matrix->depth / 4 * 2;
  while (cells != last) {
    const uint32_t x0 = cells[0], x1 = cells[1];
    cells += 2;
    const int8_t *w = v;
    uint32_t weights = ed_word(w);
    a = mac(even(weights), x0, a);
    a = mac(odd(weights), x1, a);
    weights = ed_word(w += stride);
    b = mac(even(weights), x0, b);
    b = mac(odd(weights), x1, b);
    weights = ed_word(w += stride);
    c = mac(even(weights), x0, c);
    c = mac(odd(weights), x1, c);
    weights = ed_word(w + stride);
    d = mac(even(weights), x0, d);
    d = mac(odd(weights), x1, d);
    v += 4;
  }
  for (int32_t k = matrix->depth / 4 * 4; k < matrix->depth; ++k, ++v) {
    a += v[0] * patch[k];
    b += v[stride] * patch[k];
    c += v[2 * stride] * patch[k];
    d += v[3 * stride] * patch[k];
  }
  out[row] = finish(matrix, row, a);
  out[row + 1] = finish(matrix, row + 1, b);
  out[row + 2] = finish(matrix, row + 2, c);
  out[row + 3] = finish(matrix, row + 3, d);
}

void ed_rows(const ed_matrix *given, const int8_t *first, const int8_t *second, void *scratch, int8_t *out_first,
             int8_t *out_second) {
  const ed_matrix copy = *given, *const matrix = &copy;
  uint32_t *const cells = scratch;
  int32_t row = 0;
  widen(first, second, matrix->depth / 4, cells);
  if (second != NULL) {
    if (matrix->bits == 8) {
      for (; row + 1 < matrix->rows; row += 2) two_by_two(matrix, row, cells, first, second, out_first, out_second);
    } else {
      for (; row + 1 < matrix->rows; row += 2) {
        two_by_two_packed(matrix, row, cells, first, second, out_first, out_second);
      }
    }
    if (row < matrix->rows) {
      out_first[row] = one(matrix, row, cells, 4, first);
      out_second[row] = one(matrix, row, cells + 2, 4, second);
    }
    return;
  }
  if (matrix->bits == 8) {
    for (; row + 3 < matrix->rows; row += 4) four_by_one(matrix, row, cells, first, out_first);
  }
  for (; row < matrix->rows; ++row) out_first[row] = one(matrix, row, cells, 2, first);
}

static INLINE void three_by_three(const ed_plane_job *job, const int16_t *plane, int8_t *out) {
  const uint32_t a = ed_word(job->kernel), b = ed_word(job->kernel + 2), c = ed_word(job->kernel + 4),
                 d = ed_word(job->kernel + 6), e = ed_word(job->kernel + 8), f = ed_word(job->kernel + 10);
  const ending how = ending_of(job->multiplier, job->right_shift, job->rounding, job->zero, job->low, job->high);
  const int32_t stride = job->stride_w, step = job->step;
  for (int32_t y = job->out_h; y > 0; --y, plane += job->stride_h * job->plane_pitch) {
    const int16_t *first = plane, *second = first + job->plane_pitch, *third = second + job->plane_pitch;
    for (int32_t x = job->out_w; x > 0; --x) {
      int32_t sum = mac(a, ed_word(first), job->bias);
      sum = mac(b, ed_word(first + 2), sum);
      sum = mac(c, ed_word(second), sum);
      sum = mac(d, ed_word(second + 2), sum);
      sum = mac(e, ed_word(third), sum);
      sum = mac(f, ed_word(third + 2), sum);
      first += stride;
      second += stride;
      third += stride;
      *out = end(how, sum);
      out += step;
    }
  }
}

/* The same where sums round in the short form and no activation clamps: few enough values for the registers. */
static void plain_three_by_three(const ed_plane_job *job, const int16_t *plane, int8_t *out) {
  const int32_t half = (1 << job->right_shift) >> 1, right_shift = job->right_shift, multiplier = job->multiplier;
  const int32_t bias = job->bias, zero = job->zero, stride = 2 * job->stride_w, step = job->step;
  const int32_t pitch = 2 * job->plane_pitch, next_row = job->stride_h * job->plane_pitch;
  const int16_t *const kernel = job->kernel;
  for (int32_t y = job->out_h; y > 0; --y, plane += next_row) {
    const int8_t *window = (const int8_t *)plane;
    for (int32_t x = job->out_w; x > 0; --x, window += stride, out += step) {
      int32_t sum = bias;
      uint32_t a, b, c, d;
      const int8_t *line;
      __asm__("ldrd %[a], %[b], [%[kernel]]\n"
              "ldr %[c], [%[window]]\n"
              "ldr %[d], [%[window], #4]\n"
              "add %[line], %[window], %[pitch]\n"
              "smlad %[sum], %[a], %[c], %[sum]\n"
              "smlad %[sum], %[b], %[d], %[sum]\n"
              "ldrd %[a], %[b], [%[kernel], #8]\n"
              "ldr %[c], [%[line]]\n"
              "ldr %[d], [%[line], #4]\n"
              "add %[line], %[line], %[pitch]\n"
              "smlad %[sum], %[a], %[c], %[sum]\n"
              "smlad %[sum], %[b], %[d], %[sum]\n"
              "ldrd %[a], %[b], [%[kernel], #16]\n"
              "ldr %[c], [%[line]]\n"
              "ldr %[d], [%[line], #4]\n"
              "smlad %[sum], %[a], %[c], %[sum]\n"
              "smlad %[sum], %[b], %[d], %[sum]\n"
              : [sum] "+r"(sum), [a] "=&r"(a), [b] "=&r"(b), [c] "=&r"(c), [d] "=&r"(d), [line] "=&r"(line)
              : [kernel] "r"(kernel), [window] "r"(window), [pitch] "r"(pitch)
              : "memory");
      *out = (int8_t)__ssat(scaled_plain(sum, multiplier, half, right_shift) + zero, 8);
    }
  }
}

static INLINE void any_kernel(const ed_plane_job *job, const int16_t *plane, int8_t *out) {
  const ending how = ending_of(job->multiplier, job->right_shift, job->rounding, job->zero, job->low, job->high);
  for (int32_t y = 0; y < job->out_h; ++y, plane += job->stride_h * job->plane_pitch) {
    const int16_t *window = plane;
    for (int32_t x = 0; x < job->out_w; ++x, window += job->stride_w, out += job->step) {
      int32_t sum = job->bias;
      for (int32_t ky = 0; ky < job->kernel_h; ++ky) {
        const int16_t *values = window + ky * job->dilation_h * job->plane_pitch;
        const int16_t *kernel = job->kernel + ky * job->kernel_pitch;
        int32_t kx = 0;
        if (job->dilation_w == 1) {
          for (; kx < job->kernel_pitch; kx += 2) sum = mac(ed_word(kernel + kx), ed_word(values + kx), sum);
        } else {
          for (; kx < job->kernel_w; ++kx) sum += kernel[kx] * values[kx * job->dilation_w];
        }
      }
      *out = end(how, sum);
    }
  }
}

void ed_plane(const ed_plane_job *given, const int16_t *plane, int8_t *out) {
  const ed_plane_job copy = *given, *const job = &copy;
  if (job->kernel_h == 3 && job->kernel_w == 3 && job->dilation_h == 1 && job->dilation_w == 1) {
    if (job->rounding == ED_ROUND_PLAIN && job->low == -128 && job->high == 127) {
      plain_three_by_three(given, plane, out);
    } else {
      three_by_three(job, plane, out);
    }
  } else {
    any_kernel(job, plane, out);
  }
}

#endif
