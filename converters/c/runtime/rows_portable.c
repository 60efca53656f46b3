/* Rows and planes in plain C: two rows by two patches at a time, so that every value that is loaded is used twice. */
#include "rows.h"

#ifdef ED_ROWS_PORTABLE

#include "arithmetic.h"

static int8_t finish(const ed_matrix *matrix, int32_t row, int32_t sum) {
  if (matrix->rounding == ED_ROUND_ONCE) {
    return ed_finish_once(matrix->multiplier + row, matrix->multiplier_low + row, matrix->right_shift[row], sum,
                          matrix->zero, matrix->low, matrix->high);
  }
  const int32_t value = ed_scaled(sum, matrix->multiplier[row], matrix->right_shift[row]) + matrix->zero;
  return (int8_t)ed_clamp(value, matrix->low, matrix->high);
}

static int32_t dot8(const int8_t *weights, const int8_t *patch, int32_t depth) {
  int32_t sum = 0;
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

static void two_by_two(const ed_matrix *matrix, int32_t row, const int8_t *first, const int8_t *second,
                       int8_t *out_first, int8_t *out_second) {
  const int8_t *v = matrix->weights + row * matrix->stride;
  const int8_t *w = v + matrix->stride;
  int32_t v_first = matrix->bias[row], v_second = v_first, w_first = matrix->bias[row + 1], w_second = w_first;
  for (int32_t k = 0; k < matrix->depth; ++k) {
    const int32_t x = first[k], y = second[k];
    v_first += v[k] * x;
    v_second += v[k] * y;
    w_first += w[k] * x;
    w_second += w[k] * y;
  }
  out_first[row] = finish(matrix, row, v_first);
  out_second[row] = finish(matrix, row, v_second);
  out_first[row + 1] = finish(matrix, row + 1, w_first);
  out_second[row + 1] = finish(matrix, row + 1, w_second);
}

void ed_rows(const ed_matrix *given, const int8_t *first, const int8_t *second, void *scratch, int8_t *out_first,
             int8_t *out_second) {
  (void)scratch;
  const ed_matrix copy = *given, *const matrix = &copy; /* outputs written cannot alias it */
  int32_t row = 0;
  if (second != NULL && matrix->bits == 8) {
    for (; row + 1 < matrix->rows; row += 2) two_by_two(matrix, row, first, second, out_first, out_second);
  }
  for (; row < matrix->rows; ++row) {
    const int8_t *weights = matrix->weights + row * matrix->stride;
    int32_t (*const dot)(const int8_t *, const int8_t *, int32_t) = matrix->bits == 8 ? dot8 : dot4;
    const int32_t one = dot(weights, first, matrix->depth);
    const int32_t other = second != NULL ? dot(weights, second, matrix->depth) : 0;
    out_first[row] = finish(matrix, row, matrix->bias[row] + one);
    if (second != NULL) out_second[row] = finish(matrix, row, matrix->bias[row] + other);
  }
}

void ed_plane(const ed_plane_job *given, const int16_t *plane, int8_t *out) {
  const ed_plane_job copy = *given, *const job = &copy;
  for (int32_t y = 0; y < job->out_h; ++y, plane += job->stride_h * job->plane_pitch) {
    const int16_t *window = plane;
    for (int32_t x = 0; x < job->out_w; ++x, window += job->stride_w, out += job->step) {
      int32_t sum = job->bias;
      for (int32_t ky = 0; ky < job->kernel_h; ++ky) {
        const int16_t *values = window + ky * job->dilation_h * job->plane_pitch;
        const int16_t *kernel = job->kernel + ky * job->kernel_pitch;
        for (int32_t kx = 0; kx < job->kernel_w; ++kx) sum += kernel[kx] * values[kx * job->dilation_w];
      }
      const int32_t value = ed_scaled(sum, job->multiplier, job->right_shift) + job->zero;
      *out = (int8_t)ed_clamp(value, job->low, job->high);
    }
  }
}

#endif
