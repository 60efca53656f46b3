/* The kernels that a generated model.c calls: integer arithmetic exactly as the reference kernels of TensorFlow Lite do
 * it, without heap, without globals. Shapes are rows of channels-last values; sizes count elements unless named bytes. */
#ifndef KERNELS_H
#define KERNELS_H

#include <stdint.h>

#if defined(__GNUC__)
#define ED_ALIGNED __attribute__((aligned(4)))
#else
#define ED_ALIGNED
#endif

enum { ED_MAX_DIMS = 6 };

/* value * multiplier / 2^31 / 2^right_shift; a negative shift goes to the left. */
typedef struct {
  int32_t multiplier;
  int32_t right_shift;
} ed_scale;

/* How a sum becomes an output: rounded twice in fixed point; the same where every right_shift is at least 1 and no sum
 * reaches 2^30, so that a shorter form is exact; or rounded once, with 62 bits of the factor, as dense layers are. */
enum { ED_ROUND_TWICE = 0, ED_ROUND_PLAIN = 1, ED_ROUND_ONCE = 2 };

/* Rows of weights against patches of values: what convolutions and dense layers share. */
typedef struct {
  const int8_t *weights;     /* [rows][stride] bytes; 4 bits: see ed_rows in rows.h */
  const int32_t *bias;       /* of each row; the zero point of the input is folded in */
  const int32_t *multiplier; /* of each row, as in ed_scale */
  const int32_t *multiplier_low; /* ED_ROUND_ONCE: 31 bits more of each multiplier */
  const int8_t *right_shift;
  int32_t rows;
  int32_t depth;  /* weights of a row */
  int32_t stride; /* bytes from one row to the next */
  int8_t bits;    /* 8 or 4 */
  int8_t rounding; /* one of the three below */
  int8_t zero;    /* zero point of the output */
  int8_t low, high;
} ed_matrix;

typedef struct {
  int32_t batches, in_h, in_w, in_c, out_h, out_w;
  int32_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left;
  int8_t in_zero;
} ed_window;

typedef struct {
  ed_matrix matrix;
  ed_window window;
} ed_conv;

/* Weights are stored [out channel][kernel_h][kernel_w]; `matrix.depth` is kernel_h * kernel_w. */
typedef struct {
  ed_matrix matrix;
  ed_window window;
  int32_t depth_multiplier;
} ed_depthwise;

typedef struct {
  ed_window window;
  int8_t low, high;
} ed_pool;

/* Both operands in the order of the output; a stride of 0 repeats a value. */
typedef struct {
  int32_t dims[ED_MAX_DIMS], a_strides[ED_MAX_DIMS], b_strides[ED_MAX_DIMS];
} ed_pairing;

typedef struct {
  ed_scale a, b, out;
  int32_t a_zero, b_zero, out_zero, low, high;
  int32_t sign; /* of b: 1 adds, -1 subtracts */
} ed_sum;

typedef struct {
  ed_scale out;
  int32_t a_zero, b_zero, out_zero, low, high;
} ed_product;

typedef struct {
  int32_t dims[ED_MAX_DIMS], in_strides[ED_MAX_DIMS], out_strides[ED_MAX_DIMS];
  int32_t element_bytes;
} ed_copy;

typedef struct {
  int32_t batches, rows, columns, depth;
  int32_t a_batch, a_row, a_depth, b_batch, b_column, b_depth; /* strides */
  int32_t a_zero, b_zero, out_zero;
  ed_scale out;
} ed_batch_product;

typedef struct {
  int32_t outer, axis, inner_bytes, ids;
} ed_gather;

typedef struct {
  int32_t outer, count, inner, in_zero, out_zero;
  ed_scale out;
} ed_mean;

typedef struct {
  int32_t batches, in_h, in_w, channels, out_h, out_w, scale_y, scale_x, half_pixels;
} ed_resize;

typedef struct {
  int32_t rows, depth, diff_min;
  ed_scale in;
} ed_softmax;

int32_t ed_rescale(int32_t value, ed_scale scale);

void ed_conv2d(const ed_conv *layer, const int8_t *in, int8_t *out, void *scratch);
void ed_depthwise2d(const ed_depthwise *layer, const int8_t *in, int8_t *out, void *scratch);
void ed_dense(const ed_matrix *matrix, int32_t batches, const int8_t *in, int8_t *out, void *scratch);
/* For arenas that would be too large otherwise; see frugal.c. `patch` has room for one. */
void ed_conv2d_frugal(const ed_conv *layer, const int8_t *in, int8_t *out, int8_t *patch);
void ed_dense_frugal(const ed_matrix *matrix, int32_t batches, const int8_t *in, int8_t *out);
/* For values that were UINT8 in the file; see legacy.c. */
void ed_conv2d_legacy(const ed_conv *layer, int32_t weights_zero, const int8_t *in, int8_t *out, void *scratch);
void ed_depthwise2d_legacy(const ed_depthwise *layer, int32_t weights_zero, const int8_t *in, int8_t *out);
void ed_dense_legacy(const ed_matrix *matrix, int32_t weights_zero, int32_t batches, const int8_t *in, int8_t *out,
                     void *scratch);
void ed_average_pool_legacy(const ed_pool *layer, const int8_t *in, int8_t *out);
void ed_multiply_batches(const ed_batch_product *layer, const int8_t *a, const int8_t *b, int8_t *out);

void ed_max_pool(const ed_pool *layer, const int8_t *in, int8_t *out);
void ed_average_pool(const ed_pool *layer, const int8_t *in, int8_t *out);
void ed_mean_of(const ed_mean *layer, const int8_t *in, int8_t *out);
void ed_softmax_of(const ed_softmax *layer, const int8_t *in, int8_t *out);

/* The zero point of the input is not folded into the biases. */
void ed_transpose_conv2d(const ed_conv *layer, const int8_t *in, int8_t *out);
void ed_resize_bilinear(const ed_resize *layer, const int8_t *in, int8_t *out);
void ed_place_of_extreme(int32_t sign, int32_t outer, int32_t count, int32_t inner, const int8_t *in, int32_t *out);

void ed_add(const ed_sum *layer, const ed_pairing *pairing, const int8_t *a, const int8_t *b, int8_t *out);
void ed_multiply(const ed_product *layer, const ed_pairing *pairing, const int8_t *a, const int8_t *b, int8_t *out);
void ed_extreme8(int32_t sign, const ed_pairing *pairing, const int8_t *a, const int8_t *b, int8_t *out);
void ed_extreme32(int32_t sign, const ed_pairing *pairing, const int32_t *a, const int32_t *b, int32_t *out);
void ed_requantize(ed_scale scale, int32_t in_zero, int32_t out_zero, int32_t low, int32_t high, int32_t count,
                   const int8_t *in, int8_t *out);
void ed_look_up(const uint8_t *table, int32_t count, const void *in, void *out);
void ed_quantize(float scale, int32_t zero, int32_t low, int32_t high, int32_t count, const float *in, void *out);
void ed_dequantize(float scale, int32_t zero, int32_t is_signed, int32_t count, const void *in, float *out);

void ed_move(const ed_copy *layer, const void *in, void *out);
void ed_fill(int32_t value, int32_t bytes, void *out);
/* 0, or 1 where an id lies outside its table. */
int ed_gather_rows(const ed_gather *layer, const void *table, const int32_t *ids, void *out);
/* The same of a table of 4-bit values, two a byte, low half first; inner_bytes are those of a row that is unpacked. */
int ed_gather_rows4(const ed_gather *layer, const int8_t *table, const int32_t *ids, int8_t *out);

#endif
