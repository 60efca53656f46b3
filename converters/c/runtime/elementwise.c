/* Sums, products, extremes and changes of scale, value by value. */
#include <math.h>

#include "arithmetic.h"
#include "kernels.h"

int32_t ed_rescale(int32_t value, ed_scale scale) { return ed_scaled(value, scale.multiplier, scale.right_shift); }

/* Where the operands of the output's value number `index` stand. */
static void place(const ed_pairing *pairing, int32_t index, int32_t *a, int32_t *b) {
  *a = *b = 0;
  for (int dim = ED_MAX_DIMS - 1; dim >= 0; --dim) {
    const int32_t at = index % pairing->dims[dim];
    index /= pairing->dims[dim];
    *a += at * pairing->a_strides[dim];
    *b += at * pairing->b_strides[dim];
  }
}

static int32_t size(const ed_pairing *pairing) {
  int32_t count = 1;
  for (int dim = 0; dim < ED_MAX_DIMS; ++dim) count *= pairing->dims[dim];
  return count;
}

/* Runs along the last dimension; where a run begins is found anew. */
#define FOR_EACH_RUN(pairing, A, B, I)                                                          \
  for (int32_t I = 0, count_ = size(pairing), A = 0, B = 0; place(pairing, I, &A, &B), I < count_; \
       I += (pairing)->dims[ED_MAX_DIMS - 1])

/* ed_scaled for what sums are made of: values below 2^30 whose factor is at most 1. */
static inline int32_t part(int32_t value, ed_scale scale) {
  return scale.right_shift == 0 ? ed_high_product(value, scale.multiplier)
                                : ed_scaled_plain(value, scale.multiplier, scale.right_shift);
}

void ed_add(const ed_sum *given, const ed_pairing *pairing, const int8_t *a, const int8_t *b, int8_t *out) {
  const ed_sum s = *given; /* outputs written cannot alias it */
  const int32_t step_a = pairing->a_strides[ED_MAX_DIMS - 1], step_b = pairing->b_strides[ED_MAX_DIMS - 1];
  const int32_t run = pairing->dims[ED_MAX_DIMS - 1];
  const int plain = s.a.right_shift >= 0 && s.b.right_shift >= 0 && s.out.right_shift >= 1;
  FOR_EACH_RUN(pairing, at_a, at_b, i) {
    const int8_t *x = a + at_a, *y = b + at_b;
    int8_t *to = out + i;
    if (plain) {
      for (int32_t k = run; k > 0; --k, x += step_a, y += step_b) {
        const int32_t sum = part((*x - s.a_zero) * (1 << 20), s.a) + s.sign * part((*y - s.b_zero) * (1 << 20), s.b);
        const int32_t value = ed_scaled_plain(sum, s.out.multiplier, s.out.right_shift) + s.out_zero;
        *to++ = (int8_t)ed_clamp(value, s.low, s.high);
      }
    } else {
      for (int32_t k = run; k > 0; --k, x += step_a, y += step_b) {
        const int32_t sum = ed_rescale((*x - s.a_zero) * (1 << 20), s.a) +
                            s.sign * ed_rescale((*y - s.b_zero) * (1 << 20), s.b);
        *to++ = (int8_t)ed_clamp(ed_rescale(sum, s.out) + s.out_zero, s.low, s.high);
      }
    }
  }
}

void ed_multiply(const ed_product *given, const ed_pairing *pairing, const int8_t *a, const int8_t *b, int8_t *out) {
  const ed_product p = *given;
  const int32_t step_a = pairing->a_strides[ED_MAX_DIMS - 1], step_b = pairing->b_strides[ED_MAX_DIMS - 1];
  const int32_t run = pairing->dims[ED_MAX_DIMS - 1];
  FOR_EACH_RUN(pairing, at_a, at_b, i) {
    const int8_t *x = a + at_a, *y = b + at_b;
    for (int32_t k = 0; k < run; ++k, x += step_a, y += step_b) {
      const int32_t product = ed_rescale((*x - p.a_zero) * (*y - p.b_zero), p.out) + p.out_zero;
      out[i + k] = (int8_t)ed_clamp(product, p.low, p.high);
    }
  }
}

void ed_extreme8(int32_t sign, const ed_pairing *pairing, const int8_t *a, const int8_t *b, int8_t *out) {
  FOR_EACH_RUN(pairing, at_a, at_b, i) {
    for (int32_t k = 0; k < pairing->dims[ED_MAX_DIMS - 1]; ++k) {
      const int8_t x = a[at_a + k * pairing->a_strides[ED_MAX_DIMS - 1]];
      const int8_t y = b[at_b + k * pairing->b_strides[ED_MAX_DIMS - 1]];
      out[i + k] = (x > y) == (sign > 0) ? x : y;
    }
  }
}

void ed_extreme32(int32_t sign, const ed_pairing *pairing, const int32_t *a, const int32_t *b, int32_t *out) {
  FOR_EACH_RUN(pairing, at_a, at_b, i) {
    for (int32_t k = 0; k < pairing->dims[ED_MAX_DIMS - 1]; ++k) {
      const int32_t x = a[at_a + k * pairing->a_strides[ED_MAX_DIMS - 1]];
      const int32_t y = b[at_b + k * pairing->b_strides[ED_MAX_DIMS - 1]];
      out[i + k] = (x > y) == (sign > 0) ? x : y;
    }
  }
}

void ed_requantize(ed_scale scale, int32_t in_zero, int32_t out_zero, int32_t low, int32_t high, int32_t count,
                   const int8_t *in, int8_t *out) {
  for (int32_t i = 0; i < count; ++i) {
    out[i] = (int8_t)ed_clamp(ed_rescale(in[i] - in_zero, scale) + out_zero, low, high);
  }
}

void ed_look_up(const uint8_t *table, int32_t count, const void *in, void *out) {
  const uint8_t *from = in;
  uint8_t *to = out;
  for (int32_t i = 0; i < count; ++i) to[i] = table[from[i]];
}

void ed_quantize(float scale, int32_t zero, int32_t low, int32_t high, int32_t count, const float *in, void *out) {
  uint8_t *to = out;
  for (int32_t i = 0; i < count; ++i) {
    const float value = roundf(in[i] / scale);
    /* Out of range is decided before the conversion, which it would overflow. */
    const int32_t whole = value >= 512.0f ? 512 : value <= -512.0f ? -512 : value == value ? (int32_t)value : 0;
    to[i] = (uint8_t)ed_clamp(whole + zero, low, high);
  }
}

void ed_dequantize(float scale, int32_t zero, int32_t is_signed, int32_t count, const void *in, float *out) {
  const uint8_t *from = in;
  for (int32_t i = 0; i < count; ++i) {
    const int32_t value = is_signed ? (int8_t)from[i] : from[i];
    out[i] = scale * (float)(value - zero);
  }
}
