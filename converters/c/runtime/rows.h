/* The inner loop behind one interface: rows_portable.c, rows_dsp.c or rows_mve.c provides it, whichever the compiler's
 * target has.
 *
 * Rows of 8 bits are stored one after another. Rows of 4 bits are stored in groups of eight weights in four bytes: byte i
 * holds weight i in its low half and weight i + 4 in its high half, so that two masks give two words of four weights each;
 * the last depth % 8 weights follow in pairs, low half first. */
#ifndef ROWS_H
#define ROWS_H

#include <string.h>

#include "kernels.h"

#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 1)
#define ED_ROWS_MVE 1
#elif defined(__ARM_FEATURE_DSP) && __ARM_FEATURE_DSP
#define ED_ROWS_DSP 1
#else
#define ED_ROWS_PORTABLE 1
#endif

/* All rows against one patch or two of `matrix->depth` values.
 *
 * second: NULL where there is one patch. scratch: ED_SCRATCH bytes for each value of a patch. */
void ed_rows(const ed_matrix *matrix, const int8_t *first, const int8_t *second, void *scratch, int8_t *out_first,
             int8_t *out_second);

/* The values of one tap of a window: those of a pixel, or padding. */
static inline void ed_tap(const ed_window *w, const int8_t *in, int32_t iy, int32_t ix, int8_t *patch) {
  if (iy < 0 || iy >= w->in_h || ix < 0 || ix >= w->in_w) {
    memset(patch, w->in_zero, (size_t)w->in_c);
  } else {
    memcpy(patch, in + (iy * w->in_w + ix) * w->in_c, (size_t)w->in_c);
  }
}

/* The output of a row whose matrix rounds once. */
int8_t ed_finish_once(const int32_t *multiplier, const int32_t *multiplier_low, int32_t right_shift, int32_t sum,
                      int32_t zero, int32_t low, int32_t high);

/* A kernel over a plane of 16-bit values: all outputs of one channel, `step` apart. */
typedef struct {
  const int16_t *kernel; /* [kernel_h][kernel_pitch], zeros behind each row up to an even number */
  int32_t kernel_h, kernel_w, kernel_pitch, dilation_h, dilation_w;
  int32_t plane_pitch, stride_h, stride_w, out_h, out_w, step;
  int32_t bias, multiplier, right_shift;
  int8_t rounding, zero, low, high;
} ed_plane_job;

void ed_plane(const ed_plane_job *job, const int16_t *plane, int8_t *out);

#endif
