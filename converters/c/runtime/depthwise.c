/* Depthwise convolutions, channel by channel: the channel is copied into a plane of 16-bit values with its padding, so
 * that its outputs may take the place of its inputs. */
#include "arithmetic.h"
#include "rows.h"

static void copy_plane(const ed_window *w, const int8_t *in, int32_t plane_h, int32_t plane_w, int16_t *plane) {
  const int32_t channels = w->in_c;
  for (int32_t y = 0; y < plane_h; ++y) {
    const int32_t iy = y - w->pad_top;
    int32_t x = 0;
    if (iy >= 0 && iy < w->in_h) {
      for (; x < w->pad_left; ++x) *plane++ = w->in_zero;
      const int8_t *from = in + iy * w->in_w * channels;
      int32_t last = w->pad_left + w->in_w;
      if (last > plane_w) last = plane_w;
      for (; x + 1 < last; x += 2, from += 2 * channels, plane += 2) {
        plane[0] = from[0];
        plane[1] = from[channels];
      }
      for (; x < last; ++x, from += channels) *plane++ = *from;
    }
    for (; x < plane_w; ++x) *plane++ = w->in_zero;
  }
}

void ed_depthwise2d(const ed_depthwise *layer, const int8_t *in, int8_t *out, void *scratch) {
  const ed_window *w = &layer->window;
  const ed_matrix *m = &layer->matrix;
  const int32_t plane_h = (w->out_h - 1) * w->stride_h + (w->kernel_h - 1) * w->dilation_h + 1;
  const int32_t plane_w = ((w->out_w - 1) * w->stride_w + (w->kernel_w - 1) * w->dilation_w + 2) / 2 * 2;
  const int32_t pitch = (w->kernel_w + 1) / 2 * 2;
  int16_t *const kernel = scratch;
  int16_t *const plane = kernel + w->kernel_h * pitch;
  ed_plane_job job = {kernel,      w->kernel_h, w->kernel_w, pitch,    w->dilation_h, w->dilation_w, plane_w,
                      w->stride_h, w->stride_w, w->out_h,    w->out_w, m->rows,       0,             0,
                      0,           m->rounding, m->zero,     m->low,   m->high};
  plane[plane_h * plane_w] = plane[plane_h * plane_w + 1] = 0; /* read beside the last value, times zero */
  for (int32_t batch = 0; batch < w->batches; ++batch) {
    for (int32_t channel = 0; channel < w->in_c; ++channel) {
      copy_plane(w, in + channel, plane_h, plane_w, plane);
      for (int32_t copy = 0; copy < layer->depth_multiplier; ++copy) {
        const int32_t to = channel * layer->depth_multiplier + copy;
        const int8_t *weights = m->weights + to * m->stride;
        for (int32_t ky = 0, k = 0; ky < w->kernel_h; ++ky) {
          for (int32_t kx = 0; kx < pitch; ++kx) {
            int32_t weight = 0;
            if (kx < w->kernel_w) {
              weight = m->bits == 8 ? weights[k] : ed_nibble(weights, k);
              ++k;
            }
            kernel[ky * pitch + kx] = (int16_t)weight;
          }
        }
        job.bias = m->bias[to];
        job.multiplier = m->multiplier[to];
        job.right_shift = m->right_shift[to];
        ed_plane(&job, plane, out + to);
      }
    }
    in += w->in_h * w->in_w * w->in_c;
    out += w->out_h * w->out_w * m->rows;
  }
}
