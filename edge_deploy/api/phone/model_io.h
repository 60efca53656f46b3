/* From what an app has to what the model takes, and from what the model gives to what an app shows. Portable C99,
 * no heap. The tables behind it (model_spec.c) were written from the artifact's manifest. */
#ifndef EDGE_MODEL_IO_H
#define EDGE_MODEL_IO_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { EDGE_FLOAT32, EDGE_INT8, EDGE_UINT8, EDGE_INT32, EDGE_INT64 } edge_type;

/* scale 0: not quantized. */
typedef struct {
  const char *name;
  edge_type type;
  size_t count;
  size_t bytes;
  double scale;
  int32_t zero_point;
} edge_tensor;

/* In the order in which the model is called. */
extern const edge_tensor edge_inputs[];
extern const edge_tensor edge_outputs[];
extern const int edge_input_count, edge_output_count;
/* Names of the first output's values; 0 of them where the manifest has none. */
extern const char *const edge_labels[];
extern const int edge_label_count;
/* Fields of a raw row; 0 where the model is no recommender with a feature description. */
extern const int edge_field_count;
/* Height, width, channels of the image input; all 0 where there is none. */
extern const int edge_image_height, edge_image_width, edge_image_channels;

/* A raw row, one text for each field, "" where it is missing, to the bytes of every input.
 * Returns 0, or -(1 + field) where a value cannot be read. */
int edge_encode_row(const char *const *fields, void *const *inputs);

/* 8-bit pixels [height][width][channels] to the bytes of the image input: (pixel - mean) / std, layout, quantization. */
void edge_encode_image(const uint8_t *pixels, void *input);

/* Real values in the layout of the input to its bytes. */
void edge_encode_values(int input, const float *values, void *to);

/* Bytes of an output to real values; probabilities where the original model gave them. */
void edge_decode_output(int output, const void *from, float *values);

#ifdef __cplusplus
}
#endif

#endif
