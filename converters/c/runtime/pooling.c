/* Poolings, means and the softmax. */
#include "arithmetic.h"
#include "kernels.h"

#if defined(__ARM_FEATURE_SIMD32) && !defined(__ARM_FEATURE_MVE)
#include <arm_acle.h>
#endif

/* The part of a window that lies inside the input. */
typedef struct {
  int32_t top, bottom, left, right;
} part;

static part inside(const ed_window *w, int32_t oy, int32_t ox) {
  const int32_t y = oy * w->stride_h - w->pad_top, x = ox * w->stride_w - w->pad_left;
  part found = {y < 0 ? 0 : y, y + w->kernel_h, x < 0 ? 0 : x, x + w->kernel_w};
  if (found.bottom > w->in_h) found.bottom = w->in_h;
  if (found.right > w->in_w) found.right = w->in_w;
  return found;
}

static void average(const ed_pool *layer, const int8_t *in, int8_t *out) {
  const ed_window *w = &layer->window;
  const int32_t channels = w->in_c, row = w->in_w * channels;
  for (int32_t batch = 0; batch < w->batches; ++batch, in += w->in_h * row) {
    for (int32_t oy = 0; oy < w->out_h; ++oy) {
      for (int32_t ox = 0; ox < w->out_w; ++ox) {
        const part p = inside(w, oy, ox);
        const int32_t count = (p.bottom - p.top) * (p.right - p.left);
        const int8_t *const from = in + p.top * row + p.left * channels;
        for (int32_t channel = 0; channel < channels; ++channel) {
          const int8_t *line = from + channel;
          int32_t sum = 0;
          for (int32_t y = p.top; y < p.bottom; ++y, line += row) {
            const int8_t *value = line;
            for (int32_t x = p.left; x < p.right; ++x, value += channels) sum += *value;
          }
          sum = (sum > 0 ? sum + count / 2 : sum - count / 2) / count;
          *out++ = (int8_t)ed_clamp(sum, layer->low, layer->high);
        }
      }
    }
  }
}

void ed_average_pool(const ed_pool *layer, const int8_t *in, int8_t *out) { average(layer, in, out); }

/* The larger one of each pair of values, into `most`. */
static void join(int8_t *most, const int8_t *values, int32_t count) {
#if defined(__ARM_FEATURE_SIMD32) && !defined(__ARM_FEATURE_MVE)
  for (; count >= 4; count -= 4, most += 4, values += 4) {
    const uint32_t a = ed_word(most), b = ed_word(values);
    (void)__ssub8((int8x4_t)a, (int8x4_t)b);
    const uint32_t larger = __sel(a, b);
    memcpy(most, &larger, sizeof larger);
  }
#endif
  for (; count > 0; --count, ++most, ++values) *most = *values > *most ? *values : *most;
}

/* The output may begin where its window begins: the first values of a window are moved, the others lie behind them. */
void ed_max_pool(const ed_pool *layer, const int8_t *in, int8_t *out) {
  const ed_window *w = &layer->window;
  const int32_t channels = w->in_c, row = w->in_w * channels;
  for (int32_t batch = 0; batch < w->batches; ++batch, in += w->in_h * row) {
    for (int32_t oy = 0; oy < w->out_h; ++oy) {
      for (int32_t ox = 0; ox < w->out_w; ++ox, out += channels) {
        const part p = inside(w, oy, ox);
        const int8_t *line = in + p.top * row + p.left * channels;
        memmove(out, line, (size_t)channels);
        for (int32_t y = p.top; y < p.bottom; ++y, line += row) {
          const int8_t *value = line;
          for (int32_t x = p.left; x < p.right; ++x, value += channels) {
            if (x != p.left || y != p.top) join(out, value, channels);
          }
        }
        if (layer->low > -128 || layer->high < 127) {
          for (int32_t i = 0; i < channels; ++i) out[i] = (int8_t)ed_clamp(out[i], layer->low, layer->high);
        }
      }
    }
  }
}

void ed_mean_of(const ed_mean *layer, const int8_t *in, int8_t *out) {
  for (int32_t outer = 0; outer < layer->outer; ++outer, in += layer->count * layer->inner) {
    for (int32_t i = 0; i < layer->inner; ++i) {
      const int8_t *value = in + i;
      int32_t sum = 0;
      for (int32_t k = 0; k < layer->count; ++k, value += layer->inner) sum += *value;
      sum = ed_rescale(sum - layer->in_zero * layer->count, layer->out) + layer->out_zero;
      *out++ = (int8_t)ed_clamp(sum, -128, 127);
    }
  }
}

/* exp(a) for a < 0 with 5 integer bits, as a fraction of 2^31: a Taylor series around -1/8 and a table for the rest. */
static int32_t exponential(int32_t a) {
  static const int32_t factors[7] = {1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242};
  if (a == 0) return INT32_MAX;
  const int32_t quarter = 1 << 24;
  const int32_t rest = (a & (quarter - 1)) - quarter;
  const int32_t x = (int32_t)((uint32_t)rest << 5) + (1 << 28);
  const int32_t x2 = ed_high_product(x, x), x3 = ed_high_product(x2, x), x4 = ed_high_product(x2, x2);
  const int32_t tail = ed_round_shift(ed_high_product(ed_round_shift(x4, 2) + x3, 715827883) + x2, 1);
  int32_t result = 1895147668 + ed_high_product(1895147668, x + tail);
  const int32_t remainder = rest - a;
  for (int32_t bit = 0; bit < 7; ++bit) {
    if (remainder & (1 << (24 + bit))) result = ed_high_product(result, factors[bit]);
  }
  return result;
}

static int32_t times_four(int32_t x) {
  return x > (1 << 29) - 1 ? INT32_MAX : x < -((1 << 29) - 1) ? INT32_MIN : x * 4;
}

/* 1 / (1 + a) for a in [0, 1), both as fractions of 2^31: three steps of Newton and Raphson. */
static int32_t reciprocal(int32_t a) {
  const int32_t half = (int32_t)(((int64_t)a + INT32_MAX + 1) / 2);
  int32_t x = 1515870810 + ed_high_product(half, -1010580540);
  for (int step = 0; step < 3; ++step) {
    x += times_four(ed_high_product(x, (1 << 29) - ed_high_product(half, x)));
  }
  return x > (1 << 30) - 1 ? INT32_MAX : x < -((1 << 30) - 1) ? INT32_MIN : x * 2;
}

void ed_softmax_of(const ed_softmax *layer, const int8_t *in, int8_t *out) {
  for (int32_t row = 0; row < layer->rows; ++row, in += layer->depth, out += layer->depth) {
    int32_t most = -128, sum = 0, headroom = 0;
    for (int32_t i = 0; i < layer->depth; ++i) most = in[i] > most ? in[i] : most;
    for (int32_t i = 0; i < layer->depth; ++i) {
      if (in[i] - most >= layer->diff_min) {
        sum += ed_round_shift(exponential(ed_rescale(in[i] - most, layer->in)), 12);
      }
    }
    while (headroom < 31 && !(((uint32_t)sum << headroom) & 0x80000000u)) ++headroom;
    const int32_t scale = reciprocal((int32_t)(((uint32_t)sum << headroom) - 0x80000000u));
    for (int32_t i = 0; i < layer->depth; ++i) {
      int32_t value = -128;
      if (in[i] - most >= layer->diff_min) {
        const int32_t power = exponential(ed_rescale(in[i] - most, layer->in));
        value += ed_round_shift(ed_high_product(scale, power), 12 - headroom + 31 - 8);
      }
      out[i] = (int8_t)ed_clamp(value, -128, 127);
    }
  }
}
