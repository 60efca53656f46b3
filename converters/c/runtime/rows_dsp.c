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

static inline uint32_t even(uint32_t word) { return (uint32_t)__sxtb16(word); }

/* The compiler knows no single instruction for the rotated form. */
static inline uint32_t odd(uint32_t word) {
  uint32_t pair;
  __asm__("sxtb16 %0, %1, ror #8" : "=r"(pair) : "r"(word));
  return pair;
}

static inline int32_t mac(uint32_t a, uint32_t b, int32_t sum) { return __smlad((int16x2_t)a, (int16x2_t)b, sum); }

static inline int8_t finish(const ed_matrix *matrix, int32_t row, int32_t sum) {
  const int32_t shift = matrix->right_shift[row], multiplier = matrix->multiplier[row];
  int32_t value;
  if (matrix->plain) {
    value = ed_scaled_plain(sum, multiplier, shift);
  } else {
    value = ed_scaled(sum, multiplier, shift);
  }
  return (int8_t)ed_clamp(value + matrix->zero, matrix->low, matrix->high);
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

/* Two rows by two patches: of each group of four values 1 load of weights a row and 2 of values a patch for 16 products. */
static void two_by_two(const ed_matrix *matrix, int32_t row, const uint32_t *cells, const int8_t *first,
                       const int8_t *second, int8_t *out_first, int8_t *out_second) {
  const int8_t *v = matrix->weights + row * matrix->stride;
  const int8_t *w = v + matrix->stride;
  int32_t sum[4] = {matrix->bias[row], matrix->bias[row], matrix->bias[row + 1], matrix->bias[row + 1]};
  int32_t a = sum[0], b = sum[1], c = sum[2], d = sum[3];
  const uint32_t *const last = cells + matrix->depth / 4 * 4;
  while (cells != last) {
    const uint32_t x0 = cells[0], x1 = cells[1], y0 = cells[2], y1 = cells[3];
    cells += 4;
    uint32_t weights = ed_word(v);
    v += 4;
    uint32_t pair = even(weights);
    a = mac(pair, x0, a);
    b = mac(pair, y0, b);
    pair = odd(weights);
    a = mac(pair, x1, a);
    b = mac(pair, y1, b);
    weights = ed_word(w);
    w += 4;
    pair = even(weights);
    c = mac(pair, x0, c);
    d = mac(pair, y0, d);
    pair = odd(weights);
    c = mac(pair, x1, c);
    d = mac(pair, y1, d);
  }
  for (int32_t k = matrix->depth / 4 * 4; k < matrix->depth; ++k) {
    const int32_t x = first[k], y = second[k], p = *v++, q = *w++;
    a += p * x;
    b += p * y;
    c += q * x;
    d += q * y;
  }
  out_first[row] = finish(matrix, row, a);
  out_second[row] = finish(matrix, row, b);
  out_first[row + 1] = finish(matrix, row + 1, c);
  out_second[row + 1] = finish(matrix, row + 1, d);
}

/* The same with rows of 4 bits: sums are 16 times too large until the end, because weights stay in the high halves. */
static void two_by_two_packed(const ed_matrix *matrix, int32_t row, const uint32_t *cells, const int8_t *first,
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
  out_first[row] = finish(matrix, row, a);
  out_second[row] = finish(matrix, row, b);
  out_first[row + 1] = finish(matrix, row + 1, c);
  out_second[row + 1] = finish(matrix, row + 1, d);
}

/* One row, one patch; `step`: words from one group of the patch to the next. */
static int8_t one(const ed_matrix *matrix, int32_t row, const uint32_t *cells, int32_t step, const int8_t *patch) {
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
static void four_by_one(const ed_matrix *matrix, int32_t row, const uint32_t *cells, const int8_t *patch, int8_t *out) {
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

void ed_rows(const ed_matrix *matrix, const int8_t *first, const int8_t *second, void *scratch, int8_t *out_first,
             int8_t *out_second) {
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

static inline int8_t finish_plane(const ed_plane_row *row, int32_t sum) {
  int32_t value;
  if (row->plain) {
    value = ed_scaled_plain(sum, row->multiplier, row->right_shift);
  } else {
    value = ed_scaled(sum, row->multiplier, row->right_shift);
  }
  return (int8_t)ed_clamp(value + row->zero, row->low, row->high);
}

static void three_by_three(const ed_plane_row *row, const int16_t *plane, int8_t *out) {
  const int32_t pitch = row->plane_pitch;
  const uint32_t a = ed_word(row->kernel), b = ed_word(row->kernel + 2), c = ed_word(row->kernel + 4),
                 d = ed_word(row->kernel + 6), e = ed_word(row->kernel + 8), f = ed_word(row->kernel + 10);
  for (int32_t x = 0; x < row->count; ++x, out += row->step) {
    const int16_t *values = plane;
    int32_t sum = mac(a, ed_word(values), row->bias);
    sum = mac(b, ed_word(values + 2), sum);
    values += pitch;
    sum = mac(c, ed_word(values), sum);
    sum = mac(d, ed_word(values + 2), sum);
    values += pitch;
    sum = mac(e, ed_word(values), sum);
    sum = mac(f, ed_word(values + 2), sum);
    plane += row->stride_w;
    *out = finish_plane(row, sum);
  }
}

void ed_plane(const ed_plane_row *row, const int16_t *plane, int8_t *out) {
  if (row->kernel_h == 3 && row->kernel_w == 3 && row->dilation_h == 1 && row->dilation_w == 1) {
    three_by_three(row, plane, out);
    return;
  }
  for (int32_t x = 0; x < row->count; ++x, plane += row->stride_w, out += row->step) {
    int32_t sum = row->bias;
    for (int32_t ky = 0; ky < row->kernel_h; ++ky) {
      const int16_t *values = plane + ky * row->dilation_h * row->plane_pitch;
      const int16_t *kernel = row->kernel + ky * row->kernel_pitch;
      int32_t kx = 0;
      if (row->dilation_w == 1) {
        for (; kx < row->kernel_pitch; kx += 2) sum = mac(ed_word(kernel + kx), ed_word(values + kx), sum);
      } else {
        for (; kx < row->kernel_w; ++kx) sum += kernel[kx] * values[kx * row->dilation_w];
      }
    }
    *out = finish_plane(row, sum);
  }
}

#endif
