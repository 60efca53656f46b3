/* Convolutions and dense layers: patches are gathered two at a time and handed to ed_rows. */
#include <stddef.h>

#include "arithmetic.h"
#include "rows.h"

#ifdef ED_ROWS_MVE
#include <arm_mve.h>
#endif

/* memcpy for the few bytes of a row of a window, without a call. */
static inline int8_t *copy_bytes(int8_t *to, const int8_t *from, int32_t bytes) {
#ifdef ED_ROWS_MVE
  int8_t *const end = to + bytes;
  for (; bytes > 0; bytes -= 16, from += 16, to += 16) {
    const mve_pred16_t lanes = vctp8q((uint32_t)bytes);
    vstrbq_p_s8(to, vldrbq_z_s8(from, lanes), lanes);
  }
  return end;
#else
  for (; bytes >= 16; bytes -= 16, from += 16, to += 16) memcpy(to, from, 16);
  for (; bytes >= 4; bytes -= 4, from += 4, to += 4) memcpy(to, from, 4);
  for (; bytes > 0; --bytes) *to++ = *from++;
  return to;
#endif
}

int8_t ed_finish_once(const int32_t *multiplier, const int32_t *multiplier_low, int32_t right_shift, int32_t sum,
                      int32_t zero, int32_t low, int32_t high) {
  return (int8_t)ed_clamp(ed_scaled_once(sum, *multiplier, *multiplier_low, right_shift) + zero, low, high);
}

/* One row of a kernel: `left` and `right` values of padding around `inside` values that lie together. */
static int8_t *gather_row(const ed_window *w, const int8_t *row, int32_t ix, int8_t *patch) {
  const int32_t channels = w->in_c;
  if (w->dilation_w == 1) {
    int32_t left = ix < 0 ? -ix : 0;
    int32_t inside = w->in_w - ix < w->kernel_w ? w->in_w - ix : w->kernel_w;
    if (left > w->kernel_w) left = w->kernel_w;
    inside = inside > left ? inside - left : 0;
    if (left > 0) memset(patch, w->in_zero, (size_t)(left * channels));
    patch += left * channels;
    patch = copy_bytes(patch, row + (ix + left) * channels, inside * channels);
    const int32_t right = w->kernel_w - left - inside;
    if (right > 0) memset(patch, w->in_zero, (size_t)(right * channels));
    return patch + right * channels;
  }
  for (int32_t kx = 0; kx < w->kernel_w; ++kx, ix += w->dilation_w, patch += channels) {
    if (ix < 0 || ix >= w->in_w) {
      memset(patch, w->in_zero, (size_t)channels);
    } else {
      memcpy(patch, row + ix * channels, (size_t)channels);
    }
  }
  return patch;
}

/* A window that lies inside the image: its rows, without a look at the borders. */
static void gather_inside(const ed_window *w, const int8_t *from, int8_t *patch) {
  const int32_t step = w->dilation_h * w->in_w * w->in_c;
  const int32_t bytes = w->kernel_w * w->in_c;
  for (int32_t ky = w->kernel_h; ky > 0; --ky, from += step) patch = copy_bytes(patch, from, bytes);
}

static void gather(const ed_window *w, const int8_t *in, int32_t oy, int32_t ox, int8_t *patch) {
  int32_t iy = oy * w->stride_h - w->pad_top;
  const int32_t left = ox * w->stride_w - w->pad_left;
  if (w->dilation_w == 1 && iy >= 0 && left >= 0 && left + w->kernel_w <= w->in_w &&
      iy + (w->kernel_h - 1) * w->dilation_h < w->in_h) {
    gather_inside(w, in + (iy * w->in_w + left) * w->in_c, patch);
    return;
  }
  for (int32_t ky = 0; ky < w->kernel_h; ++ky, iy += w->dilation_h) {
    if (iy < 0 || iy >= w->in_h) {
      memset(patch, w->in_zero, (size_t)(w->kernel_w * w->in_c));
      patch += w->kernel_w * w->in_c;
    } else {
      patch = gather_row(w, in + iy * w->in_w * w->in_c, left, patch);
    }
  }
}

void ed_conv2d(const ed_conv *layer, const int8_t *in, int8_t *out, void *scratch) {
  const ed_window *w = &layer->window;
  const ed_matrix *matrix = &layer->matrix;
  const int32_t pixels = w->out_h * w->out_w;
  const int8_t *const direct = w->kernel_h * w->kernel_w == 1 && w->pad_top + w->pad_left == 0 ? in : NULL;
  const int32_t step = w->stride_w * w->in_c;
  int8_t *const patches = scratch;
  void *const rest = patches + (direct != NULL ? 0 : (2 * matrix->depth + 3) / 4 * 4);
  for (int32_t batch = 0; batch < w->batches; ++batch, in += w->in_h * w->in_w * w->in_c) {
    const int8_t *patch[2] = {patches, patches + matrix->depth};
    int32_t waiting = 0, oy = 0, ox = 0;
    for (int32_t pixel = 0; pixel < pixels; ++pixel) {
      if (direct != NULL) {
        patch[waiting] = in + oy * w->stride_h * w->in_w * w->in_c + ox * step;
      } else {
        gather(w, in, oy, ox, patches + waiting * matrix->depth);
      }
      if (++ox == w->out_w) ox = 0, ++oy;
      if (++waiting == 2) {
        ed_rows(matrix, patch[0], patch[1], rest, out, out + matrix->rows);
        out += 2 * matrix->rows;
        waiting = 0;
      }
    }
    if (waiting) {
      ed_rows(matrix, patch[0], NULL, rest, out, NULL);
      out += matrix->rows;
    }
  }
}

void ed_dense(const ed_matrix *matrix, int32_t batches, const int8_t *in, int8_t *out, void *scratch) {
  const int32_t depth = matrix->depth, rows = matrix->rows;
  for (; batches >= 2; batches -= 2, in += 2 * depth, out += 2 * rows) {
    ed_rows(matrix, in, in + depth, scratch, out, out + rows);
  }
  if (batches) ed_rows(matrix, in, NULL, scratch, out, NULL);
}

void ed_multiply_batches(const ed_batch_product *p, const int8_t *a, const int8_t *b, int8_t *out) {
  for (int32_t batch = 0; batch < p->batches; ++batch, a += p->a_batch, b += p->b_batch) {
    for (int32_t row = 0; row < p->rows; ++row) {
      for (int32_t column = 0; column < p->columns; ++column) {
        const int8_t *x = a + row * p->a_row, *y = b + column * p->b_column;
        int32_t sum = 0;
        for (int32_t k = 0; k < p->depth; ++k, x += p->a_depth, y += p->b_depth) {
          sum += (*x - p->a_zero) * (*y - p->b_zero);
        }
        *out++ = (int8_t)ed_clamp(ed_rescale(sum, p->out) + p->out_zero, -128, 127);
      }
    }
  }
}
