/* Layers of files whose values were UINT8, here 128 lower: weights with a zero point, averages that round halves upwards.
 *
 * sum of (weight - zero) * value = sum of weight * value - zero * sum of value: the second part is the same for all rows
 * and is taken from their biases, so that the rows are those of every other layer. */
#include "arithmetic.h"
#include "rows.h"

static void rows_with_zero(const ed_matrix *matrix, int32_t weights_zero, const int8_t *patch, void *scratch,
                           int8_t *out) {
  ed_matrix now = *matrix;
  int32_t *const bias = scratch;
  int32_t sum = 0;
  for (int32_t k = 0; k < matrix->depth; ++k) sum += patch[k];
  for (int32_t row = 0; row < matrix->rows; ++row) bias[row] = matrix->bias[row] - weights_zero * sum;
  now.bias = bias;
  ed_rows(&now, patch, NULL, bias + matrix->rows, out, NULL);
}

void ed_conv2d_legacy(const ed_conv *layer, int32_t weights_zero, const int8_t *in, int8_t *out, void *scratch) {
  const ed_window *w = &layer->window;
  const ed_matrix *matrix = &layer->matrix;
  int8_t *const patch = scratch;
  void *const rest = patch + (matrix->depth + 3) / 4 * 4;
  for (int32_t batch = 0; batch < w->batches; ++batch, in += w->in_h * w->in_w * w->in_c) {
    for (int32_t oy = 0; oy < w->out_h; ++oy) {
      for (int32_t ox = 0; ox < w->out_w; ++ox, out += matrix->rows) {
        int8_t *to = patch;
        for (int32_t ky = 0; ky < w->kernel_h; ++ky) {
          for (int32_t kx = 0; kx < w->kernel_w; ++kx, to += w->in_c) {
            ed_tap(w, in, oy * w->stride_h - w->pad_top + ky * w->dilation_h,
                ox * w->stride_w - w->pad_left + kx * w->dilation_w, to);
          }
        }
        rows_with_zero(matrix, weights_zero, patch, rest, out);
      }
    }
  }
}

void ed_dense_legacy(const ed_matrix *matrix, int32_t weights_zero, int32_t batches, const int8_t *in, int8_t *out,
                     void *scratch) {
  for (; batches > 0; --batches, in += matrix->depth, out += matrix->rows) {
    rows_with_zero(matrix, weights_zero, in, scratch, out);
  }
}

/* Channel by channel as ed_depthwise2d, without a plane: the taps that lie inside the image. */
void ed_depthwise2d_legacy(const ed_depthwise *layer, int32_t weights_zero, const int8_t *in, int8_t *out) {
  const ed_window *w = &layer->window;
  const ed_matrix *m = &layer->matrix;
  for (int32_t batch = 0; batch < w->batches; ++batch, in += w->in_h * w->in_w * w->in_c) {
    for (int32_t oy = 0; oy < w->out_h; ++oy) {
      for (int32_t ox = 0; ox < w->out_w; ++ox) {
        for (int32_t to = 0; to < m->rows; ++to) {
          const int32_t channel = to / layer->depth_multiplier;
          const int8_t *weight = m->weights + to * m->stride;
          int32_t sum = m->bias[to];
          for (int32_t ky = 0; ky < w->kernel_h; ++ky) {
            const int32_t iy = oy * w->stride_h - w->pad_top + ky * w->dilation_h;
            for (int32_t kx = 0; kx < w->kernel_w; ++kx, ++weight) {
              const int32_t ix = ox * w->stride_w - w->pad_left + kx * w->dilation_w;
              const int32_t is_inside = iy >= 0 && iy < w->in_h && ix >= 0 && ix < w->in_w;
              const int32_t value = is_inside ? in[(iy * w->in_w + ix) * w->in_c + channel] : w->in_zero;
              sum += (*weight - weights_zero) * value;
            }
          }
          sum = ed_scaled(sum, m->multiplier[to], m->right_shift[to]) + m->zero;
          *out++ = (int8_t)ed_clamp(sum, m->low, m->high);
        }
      }
    }
  }
}

void ed_average_pool_legacy(const ed_pool *layer, const int8_t *in, int8_t *out) {
  const ed_window *w = &layer->window;
  for (int32_t batch = 0; batch < w->batches; ++batch, in += w->in_h * w->in_w * w->in_c) {
    for (int32_t oy = 0; oy < w->out_h; ++oy) {
      for (int32_t ox = 0; ox < w->out_w; ++ox) {
        for (int32_t channel = 0; channel < w->in_c; ++channel) {
          int32_t sum = 0, count = 0;
          for (int32_t ky = 0; ky < w->kernel_h; ++ky) {
            const int32_t iy = oy * w->stride_h - w->pad_top + ky;
            for (int32_t kx = 0; kx < w->kernel_w; ++kx) {
              const int32_t ix = ox * w->stride_w - w->pad_left + kx;
              if (iy < 0 || iy >= w->in_h || ix < 0 || ix >= w->in_w) continue;
              sum += in[(iy * w->in_w + ix) * w->in_c + channel] + 128;
              ++count;
            }
          }
          *out++ = (int8_t)ed_clamp((sum + count / 2) / count - 128, layer->low, layer->high);
        }
      }
    }
  }
}
