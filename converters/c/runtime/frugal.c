/* Layers for arenas that would be too large otherwise: no patch is widened, and one is gathered at a time. */
#include "arithmetic.h"
#include "rows.h"

#if defined(__ARM_FEATURE_SIMD32) && !defined(__ARM_FEATURE_MVE)
#include <arm_acle.h>

/* Bytes 1 and 3 in the places of 0 and 2. */
static inline int8x4_t odd(uint32_t word) { return (int8x4_t)(word >> 8 | word << 24); }
#endif

static int32_t dot8(const int8_t *weights, const int8_t *patch, int32_t depth) {
  int32_t sum = 0;
#if defined(__ARM_FEATURE_SIMD32) && !defined(__ARM_FEATURE_MVE)
  for (; depth >= 4; depth -= 4, weights += 4, patch += 4) {
    const uint32_t w = ed_word(weights), x = ed_word(patch);
    sum = __smlad(__sxtb16((int8x4_t)w), __sxtb16((int8x4_t)x), sum);
    sum = __smlad(__sxtb16(odd(w)), __sxtb16(odd(x)), sum);
  }
#endif
  for (int32_t k = 0; k < depth; ++k) sum += weights[k] * patch[k];
  return sum;
}

static int32_t dot4(const int8_t *weights, const int8_t *patch, int32_t depth) {
  int32_t sum = 0;
  for (; depth >= 8; depth -= 8, weights += 4, patch += 8) {
    for (int32_t k = 0; k < 4; ++k) {
      sum += ed_nibble(weights + k, 0) * patch[k] + (weights[k] >> 4) * patch[k + 4];
    }
  }
  for (int32_t k = 0; k < depth; ++k) sum += ed_nibble(weights, k) * patch[k];
  return sum;
}

static void rows(const ed_matrix *m, const int8_t *patch, int8_t *out) {
  for (int32_t row = 0; row < m->rows; ++row) {
    const int8_t *weights = m->weights + row * m->stride;
    const int32_t sum =
        m->bias[row] + (m->bits == 8 ? dot8(weights, patch, m->depth) : dot4(weights, patch, m->depth));
    if (m->rounding == ED_ROUND_ONCE) {
      out[row] = ed_finish_once(m->multiplier + row, m->multiplier_low + row, m->right_shift[row], sum, m->zero, m->low,
                                m->high);
    } else {
      const int32_t value = ed_scaled(sum, m->multiplier[row], m->right_shift[row]) + m->zero;
      out[row] = (int8_t)ed_clamp(value, m->low, m->high);
    }
  }
}

void ed_conv2d_frugal(const ed_conv *layer, const int8_t *in, int8_t *out, int8_t *patch) {
  const ed_window *w = &layer->window;
  for (int32_t batch = 0; batch < w->batches; ++batch, in += w->in_h * w->in_w * w->in_c) {
    for (int32_t oy = 0; oy < w->out_h; ++oy) {
      for (int32_t ox = 0; ox < w->out_w; ++ox, out += layer->matrix.rows) {
        int8_t *to = patch;
        for (int32_t ky = 0; ky < w->kernel_h; ++ky) {
          for (int32_t kx = 0; kx < w->kernel_w; ++kx, to += w->in_c) {
            ed_tap(w, in, oy * w->stride_h - w->pad_top + ky * w->dilation_h,
                   ox * w->stride_w - w->pad_left + kx * w->dilation_w, to);
          }
        }
        rows(&layer->matrix, patch, out);
      }
    }
  }
}

void ed_dense_frugal(const ed_matrix *matrix, int32_t batches, const int8_t *in, int8_t *out) {
  for (; batches > 0; --batches, in += matrix->depth, out += matrix->rows) rows(matrix, in, out);
}
