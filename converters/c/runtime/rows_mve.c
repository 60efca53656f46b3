/* Rows and planes for cores with Helium (Cortex-M55, M85): sixteen products an instruction. */
#include "rows.h"

#ifdef ED_ROWS_MVE

#include <arm_mve.h>
#include <stddef.h>

#include "arithmetic.h"

#define INLINE inline __attribute__((always_inline))

/* Four sums as outputs, with the roundings of ed_scaled: VQRDMULH rounds halves upwards, VRSHL is corrected to round
 * them away from zero. */
static INLINE int32x4_t finish(int32x4_t sums, int32x4_t multiplier, int32x4_t right_shift, int32_t zero, int32_t low,
                               int32_t high) {
  const int32x4_t left = vmaxq_s32(vnegq_s32(right_shift), vdupq_n_s32(0));
  const int32x4_t right = vminq_s32(vnegq_s32(right_shift), vdupq_n_s32(0));
  int32x4_t value = vqrdmulhq_s32(vshlq_s32(sums, left), multiplier);
  value = vaddq_s32(value, vshrq_n_s32(vandq_s32(value, right), 31));
  value = vaddq_n_s32(vrshlq_s32(value, right), zero);
  return vminq_s32(vmaxq_s32(value, vdupq_n_s32(low)), vdupq_n_s32(high));
}

static inline int8_t finish_one(const ed_matrix *matrix, int32_t row, int32_t sum) {
  if (matrix->rounding == ED_ROUND_ONCE) {
    return ed_finish_once(matrix->multiplier + row, matrix->multiplier_low + row, matrix->right_shift[row], sum,
                          matrix->zero, matrix->low, matrix->high);
  }
  const int32_t value = ed_scaled(sum, matrix->multiplier[row], matrix->right_shift[row]) + matrix->zero;
  return (int8_t)ed_clamp(value, matrix->low, matrix->high);
}

static int32_t dot8(const int8_t *weights, const int8_t *patch, int32_t depth) {
  int32_t sum = 0;
  for (; depth > 0; depth -= 16, weights += 16, patch += 16) {
    const mve_pred16_t lanes = vctp8q((uint32_t)depth);
    sum = vmladavaq_s8(sum, vldrbq_z_s8(weights, lanes), vldrbq_z_s8(patch, lanes));
  }
  return sum;
}

/* Places of the values whose weights stand in the low halves of four groups; those of the high halves follow by four. */
static const uint8_t low_places[16] = {0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27};

/* `count` rows of 4 bits by one patch: the values of 32 weights are gathered once for all rows. */
static __attribute__((noinline)) void packed_sums(const int8_t *row, int32_t stride, int32_t count,
                                                  const int8_t *patch, int32_t depth, int32_t *sum) {
  const uint8x16_t places = vldrbq_u8(low_places);
  int32_t groups = depth / 8;
  for (; groups > 0; groups -= 4, row += 16, patch += 32) {
    const mve_pred16_t lanes = vctp8q((uint32_t)(4 * groups));
    const int8x16_t of_low = vldrbq_gather_offset_z_s8(patch, places, lanes);
    const int8x16_t of_high = vldrbq_gather_offset_z_s8(patch + 4, places, lanes);
    const int8_t *weights = row;
    for (int32_t k = 0; k < count; ++k, weights += stride) {
      const int8x16_t packed = vldrbq_z_s8(weights, lanes);
      sum[k] = vmladavaq_s8(sum[k], vshrq_n_s8(vshlq_n_s8(packed, 4), 4), of_low);
      sum[k] = vmladavaq_s8(sum[k], vshrq_n_s8(packed, 4), of_high);
    }
  }
  row += 4 * groups;
  patch += 8 * groups; /* back over what the last round took too much */
  for (int32_t k = 0; k < count; ++k, row += stride) {
    for (int32_t rest = 0; rest < depth % 8; ++rest) sum[k] += ed_nibble(row, rest) * patch[rest];
  }
}

/* Four rows by one patch: 5 loads for 64 products, the last ones predicated by the loop itself. */
static INLINE void four_sums(const int8_t *a, int32_t stride, const int8_t *patch, int32_t depth, int32_t sum[4]) {
  const int8_t *b = a + stride, *c = b + stride, *d = c + stride;
#if defined(__OPTIMIZE__) && !defined(__PIC__)
  int32_t of_a = sum[0], of_b = sum[1], of_c = sum[2], of_d = sum[3];
  __asm__ volatile(
      "dlstp.8 lr, %[depth]\n"
      "1:\n"
      "vldrb.8 q0, [%[patch]], #16\n"
      "vldrb.8 q1, [%[a]], #16\n"
      "vmladava.s8 %[of_a], q0, q1\n"
      "vldrb.8 q2, [%[b]], #16\n"
      "vmladava.s8 %[of_b], q0, q2\n"
      "vldrb.8 q1, [%[c]], #16\n"
      "vmladava.s8 %[of_c], q0, q1\n"
      "vldrb.8 q2, [%[d]], #16\n"
      "vmladava.s8 %[of_d], q0, q2\n"
      "letp lr, 1b\n"
      : [of_a] "+Te"(of_a), [of_b] "+Te"(of_b), [of_c] "+Te"(of_c), [of_d] "+Te"(of_d), [a] "+r"(a), [b] "+r"(b),
        [c] "+r"(c), [d] "+r"(d), [patch] "+r"(patch)
      : [depth] "r"(depth)
      : "lr", "q0", "q1", "q2", "memory");
  sum[0] = of_a, sum[1] = of_b, sum[2] = of_c, sum[3] = of_d;
#else
  sum[0] += dot8(a, patch, depth);
  sum[1] += dot8(b, patch, depth);
  sum[2] += dot8(c, patch, depth);
  sum[3] += dot8(d, patch, depth);
#endif
}

static INLINE void four_rows(const ed_matrix *matrix, int32_t row, const int8_t *patch, int8_t *out) {
  int32_t sum[4] = {matrix->bias[row], matrix->bias[row + 1], matrix->bias[row + 2], matrix->bias[row + 3]};
  const int8_t *weights = matrix->weights + row * matrix->stride;
  if (matrix->bits == 8) {
    four_sums(weights, matrix->stride, patch, matrix->depth, sum);
  } else {
    packed_sums(weights, matrix->stride, 4, patch, matrix->depth, sum);
  }
  if (matrix->rounding == ED_ROUND_ONCE) {
    for (int32_t k = 0; k < 4; ++k) out[row + k] = finish_one(matrix, row + k, sum[k]);
    return;
  }
  const int32x4_t sums = vldrwq_s32(sum), multiplier = vldrwq_s32(matrix->multiplier + row);
  const int32x4_t right_shift = vldrbq_s32(matrix->right_shift + row);
  if (matrix->rounding == ED_ROUND_PLAIN) { /* no shift to the left, no correction for a shift of 0 */
    int32x4_t value = vqrdmulhq_s32(sums, multiplier);
    value = vaddq_s32(value, vshrq_n_s32(value, 31));
    value = vaddq_n_s32(vrshlq_s32(value, vnegq_s32(right_shift)), matrix->zero);
    value = vminq_s32(vmaxq_s32(value, vdupq_n_s32(matrix->low)), vdupq_n_s32(matrix->high));
    vstrbq_s32(out + row, value);
  } else {
    vstrbq_s32(out + row, finish(sums, multiplier, right_shift, matrix->zero, matrix->low, matrix->high));
  }
}

static void rows(const ed_matrix *given, const int8_t *patch, int8_t *out) {
  const ed_matrix copy = *given, *const matrix = &copy;
  int32_t row = 0;
  for (; row + 3 < matrix->rows; row += 4) four_rows(matrix, row, patch, out);
  for (; row < matrix->rows; ++row) {
    const int8_t *weights = matrix->weights + row * matrix->stride;
    int32_t sum = 0;
    if (matrix->bits == 8) {
      sum = dot8(weights, patch, matrix->depth);
    } else {
      packed_sums(weights, matrix->stride, 1, patch, matrix->depth, &sum);
    }
    out[row] = finish_one(matrix, row, matrix->bias[row] + sum);
  }
}

void ed_rows(const ed_matrix *matrix, const int8_t *first, const int8_t *second, void *scratch, int8_t *out_first,
             int8_t *out_second) {
  (void)scratch;
  rows(matrix, first, out_first);
  if (second != NULL) rows(matrix, second, out_second);
}

/* Four values of a plane, `stride` apart; lanes outside are 0. */
static INLINE int32x4_t four_values(const int16_t *values, uint32x4_t places, int32_t stride, mve_pred16_t lanes) {
  return stride == 1 ? vldrhq_z_s32(values, lanes) : vldrhq_gather_shifted_offset_z_s32(values, places, lanes);
}

static INLINE int32x4_t three_by_three(const ed_plane_job *job, const int16_t *window, uint32x4_t places, int32_t stride,
                                       mve_pred16_t lanes) {
  const int16_t *kernel = job->kernel;
  int32x4_t sums = vdupq_n_s32(job->bias);
  for (int row = 0; row < 3; ++row, window += job->plane_pitch, kernel += 4) {
    sums = vmlaq_n_s32(sums, four_values(window, places, stride, lanes), kernel[0]);
    sums = vmlaq_n_s32(sums, four_values(window + 1, places, stride, lanes), kernel[1]);
    sums = vmlaq_n_s32(sums, four_values(window + 2, places, stride, lanes), kernel[2]);
  }
  return sums;
}

static INLINE int32x4_t any_kernel(const ed_plane_job *job, const int16_t *window, uint32x4_t places, int32_t stride,
                                   mve_pred16_t lanes) {
  int32x4_t sums = vdupq_n_s32(job->bias);
  for (int32_t ky = 0; ky < job->kernel_h; ++ky) {
    const int16_t *values = window + ky * job->dilation_h * job->plane_pitch;
    const int16_t *kernel = job->kernel + ky * job->kernel_pitch;
    for (int32_t kx = 0; kx < job->kernel_w; ++kx, values += job->dilation_w) {
      sums = vmlaq_n_s32(sums, four_values(values, places, stride, lanes), kernel[kx]);
    }
  }
  return sums;
}

void ed_plane(const ed_plane_job *given, const int16_t *plane, int8_t *out) {
  const ed_plane_job copy = *given, *const job = &copy; /* outputs written cannot alias it */
  const int32_t stride = job->stride_w, step = job->step;
  const uint32x4_t four = vidupq_n_u32(0, 1);
  const uint32x4_t places = vmulq_n_u32(four, (uint32_t)stride), targets = vmulq_n_u32(four, (uint32_t)step);
  const int small = job->kernel_h == 3 && job->kernel_w == 3 && job->dilation_h == 1 && job->dilation_w == 1;
  const int32x4_t multiplier = vdupq_n_s32(job->multiplier), right_shift = vdupq_n_s32(job->right_shift);
  for (int32_t y = 0; y < job->out_h; ++y, plane += job->stride_h * job->plane_pitch) {
    const int16_t *window = plane;
    for (int32_t left = job->out_w; left > 0; left -= 4, window += 4 * stride) {
      const mve_pred16_t lanes = vctp32q((uint32_t)left);
      int32x4_t sums;
      if (small && stride == 1) {
        sums = three_by_three(job, window, places, 1, lanes);
      } else if (small) {
        sums = three_by_three(job, window, places, stride, lanes);
      } else {
        sums = any_kernel(job, window, places, stride, lanes);
      }
      sums = finish(sums, multiplier, right_shift, job->zero, job->low, job->high);
      vstrbq_scatter_offset_p_s32(out, targets, sums, lanes);
      out += (left < 4 ? left : 4) * step;
    }
  }
}

#endif
