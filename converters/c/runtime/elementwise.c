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

/* Walks over the last dimension with its strides; the others change seldom. */
#define FOR_EACH_PAIR(pairing, A, B, I)                                                       \
  for (int32_t I = 0, count_ = size(pairing), run_ = (pairing)->dims[ED_MAX_DIMS - 1], A = 0, \
               B = 0, left_ = 0;                                                              \
       I < count_; ++I, --left_, A += (pairing)->a_strides[ED_MAX_DIMS - 1],                  \
               B += (pairing)->b_strides[ED_MAX_DIMS - 1])                                    \
    if (left_ == 0 && (left_ = run_, place(pairing, I, &A, &B), 0)) {                         \
    } else

void ed_add(const ed_sum *s, const ed_pairing *pairing, const int8_t *a, const int8_t *b, int8_t *out) {
  FOR_EACH_PAIR(pairing, at_a, at_b, i) {
    const int32_t x = ed_rescale((a[at_a] - s->a_zero) * (1 << 20), s->a);
    const int32_t y = ed_rescale((b[at_b] - s->b_zero) * (1 << 20), s->b);
    const int32_t sum = ed_rescale(x + s->sign * y, s->out) + s->out_zero;
    out[i] = (int8_t)ed_clamp(sum, s->low, s->high);
  }
}

void ed_multiply(const ed_product *p, const ed_pairing *pairing, const int8_t *a, const int8_t *b, int8_t *out) {
  FOR_EACH_PAIR(pairing, at_a, at_b, i) {
    const int32_t product = ed_rescale((a[at_a] - p->a_zero) * (b[at_b] - p->b_zero), p->out) + p->out_zero;
    out[i] = (int8_t)ed_clamp(product, p->low, p->high);
  }
}

void ed_extreme8(int32_t sign, const ed_pairing *pairing, const int8_t *a, const int8_t *b, int8_t *out) {
  FOR_EACH_PAIR(pairing, at_a, at_b, i) {
    const int8_t x = a[at_a], y = b[at_b];
    out[i] = (x > y) == (sign > 0) ? x : y;
  }
}

void ed_extreme32(int32_t sign, const ed_pairing *pairing, const int32_t *a, const int32_t *b, int32_t *out) {
  FOR_EACH_PAIR(pairing, at_a, at_b, i) {
    const int32_t x = a[at_a], y = b[at_b];
    out[i] = (x > y) == (sign > 0) ? x : y;
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
