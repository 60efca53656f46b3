/* The tables of model_spec.c, for model_io.c alone. */
#ifndef EDGE_MODEL_SPEC_H
#define EDGE_MODEL_SPEC_H

#include "model_counts.h"
#include "model_io.h"

typedef enum { EDGE_IDENTITY, EDGE_LOG1P, EDGE_SIGNED_LOG1P } edge_transform;
typedef enum { EDGE_BLAKE2B, EDGE_HEX, EDGE_VOCABULARY, EDGE_DIRECT } edge_encoding;

typedef struct {
  int field;
  edge_transform transform;
  double missing, mean, std;
} edge_dense;

typedef struct {
  const char *text;
  int64_t id;
} edge_word;

/* words: in the order of their bytes. */
typedef struct {
  int field;
  edge_encoding encoding;
  uint64_t rows, modulus, seed;
  int64_t first_id, missing_id, unseen_id;
  const edge_word *words;
  size_t word_count;
} edge_category;

extern const edge_dense edge_dense_table[];
extern const edge_category edge_category_table[];
extern const int edge_dense_count, edge_category_count;
/* Places of the two among the inputs. */
extern const int edge_dense_input, edge_ids_input;
extern const double edge_image_mean[], edge_image_std[];
extern const int edge_image_input, edge_image_channels_first;
/* 1 where an output is a logit and the original model gave its probability. */
extern const int edge_output_is_logit[];

/* Exposed for the self-test. */
int edge_encode_features(const char *const *fields, float *dense, int64_t *ids);

#endif
