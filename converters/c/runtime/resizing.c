/* Convolutions that enlarge, bilinear resizing, and the place of the largest value. */
#include "arithmetic.h"
#include "kernels.h"

/* Each output gathers the taps whose input lies on the grid of strides: no sums are kept in between. */
void ed_transpose_conv2d(const ed_conv *layer, const int8_t *in, int8_t *out) {
  const ed_window *w = &layer->window;
  const ed_matrix *m = &layer->matrix;
  for (int32_t batch = 0; batch < w->batches; ++batch, in += w->in_h * w->in_w * w->in_c) {
    for (int32_t oy = 0; oy < w->out_h; ++oy) {
      for (int32_t ox = 0; ox < w->out_w; ++ox) {
        for (int32_t row = 0; row < m->rows; ++row) {
          const int8_t *weight = m->weights + row * m->stride;
          int32_t sum = m->bias[row];
          for (int32_t ky = 0; ky < w->kernel_h; ++ky) {
            const int32_t ty = oy + w->pad_top - ky, iy = ty / w->stride_h;
            for (int32_t kx = 0; kx < w->kernel_w; ++kx, weight += w->in_c) {
              const int32_t tx = ox + w->pad_left - kx, ix = tx / w->stride_w;
              if (ty < 0 || tx < 0 || iy * w->stride_h != ty || ix * w->stride_w != tx || iy >= w->in_h ||
                  ix >= w->in_w) {
                continue;
              }
              const int8_t *value = in + (iy * w->in_w + ix) * w->in_c;
              for (int32_t k = 0; k < w->in_c; ++k) sum += weight[k] * (value[k] - w->in_zero);
            }
          }
          sum = ed_scaled(sum, m->multiplier[row], m->right_shift[row]) + m->zero;
          *out++ = (int8_t)ed_clamp(sum, m->low, m->high);
        }
      }
    }
  }
}

/* Where a row or column of the output lies between two of the input: 10 bits of fraction. */
typedef struct {
  int32_t lower, upper, rest;
} between;

static between place(int32_t at, int32_t scale, int32_t half_pixels, int32_t size) {
  const int32_t scaled = at * scale + (half_pixels ? scale / 2 - 512 : 0);
  between found = {scaled / 1024 > 0 ? scaled / 1024 : 0, (scaled + 1023) / 1024, 0};
  if (found.lower > size - 1) found.lower = size - 1;
  if (found.upper > size - 1) found.upper = size - 1;
  found.rest = scaled - 1024 * found.lower;
  return found;
}

void ed_resize_bilinear(const ed_resize *layer, const int8_t *in, int8_t *out) {
  const int32_t channels = layer->channels, row = layer->in_w * channels;
  for (int32_t batch = 0; batch < layer->batches; ++batch, in += layer->in_h * row) {
    for (int32_t oy = 0; oy < layer->out_h; ++oy) {
      const between y = place(oy, layer->scale_y, layer->half_pixels, layer->in_h);
      for (int32_t ox = 0; ox < layer->out_w; ++ox) {
        const between x = place(ox, layer->scale_x, layer->half_pixels, layer->in_w);
        const int8_t *a = in + y.lower * row + x.lower * channels, *b = in + y.lower * row + x.upper * channels;
        const int8_t *c = in + y.upper * row + x.lower * channels, *d = in + y.upper * row + x.upper * channels;
        for (int32_t k = 0; k < channels; ++k) {
          const int32_t above = a[k] * (1024 - x.rest) + b[k] * x.rest;
          const int32_t below = c[k] * (1024 - x.rest) + d[k] * x.rest;
          const int32_t sum = above * (1024 - y.rest) + below * y.rest;
          *out++ = (int8_t)((sum + (sum > 0 ? 1 << 19 : -(1 << 19))) / (1 << 20));
        }
      }
    }
  }
}

void ed_place_of_extreme(int32_t sign, int32_t outer, int32_t count, int32_t inner, const int8_t *in, int32_t *out) {
  for (; outer > 0; --outer, in += count * inner) {
    for (int32_t i = 0; i < inner; ++i) {
      int32_t best = 0;
      for (int32_t k = 1; k < count; ++k) {
        if (sign * in[k * inner + i] > sign * in[best * inner + i]) best = k;
      }
      *out++ = best;
    }
  }
}
