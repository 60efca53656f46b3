/* Values that change their place only. */
#include <stddef.h>
#include <string.h>

#include "arithmetic.h"
#include "kernels.h"

void ed_move(const ed_copy *layer, const void *in, void *out) {
  int32_t at[ED_MAX_DIMS] = {0};
  const int last = ED_MAX_DIMS - 1;
  const int8_t *from = in;
  int8_t *to = out;
  const int32_t bytes = layer->element_bytes;
  for (;;) {
    if (layer->in_strides[last] == bytes && layer->out_strides[last] == bytes) {
      memcpy(to, from, (size_t)(bytes * layer->dims[last]));
    } else {
      for (int32_t i = 0; i < layer->dims[last]; ++i) {
        memcpy(to + i * layer->out_strides[last], from + i * layer->in_strides[last], (size_t)bytes);
      }
    }
    int dim = last - 1;
    for (; dim >= 0; --dim) {
      from += layer->in_strides[dim];
      to += layer->out_strides[dim];
      if (++at[dim] < layer->dims[dim]) break;
      from -= layer->in_strides[dim] * layer->dims[dim];
      to -= layer->out_strides[dim] * layer->dims[dim];
      at[dim] = 0;
    }
    if (dim < 0) return;
  }
}

void ed_fill(int32_t value, int32_t bytes, void *out) { memset(out, value, (size_t)bytes); }

int ed_gather_rows(const ed_gather *layer, const void *table, const int32_t *ids, void *out) {
  const int8_t *from = table;
  int8_t *to = out;
  for (int32_t outer = 0; outer < layer->outer; ++outer, from += layer->axis * layer->inner_bytes) {
    for (int32_t i = 0; i < layer->ids; ++i, to += layer->inner_bytes) {
      if (ids[i] < 0 || ids[i] >= layer->axis) return 1;
      memcpy(to, from + ids[i] * layer->inner_bytes, (size_t)layer->inner_bytes);
    }
  }
  return 0;
}

int ed_gather_rows4(const ed_gather *layer, const int8_t *table, const int32_t *ids, int8_t *out) {
  const int32_t count = layer->inner_bytes;
  for (int32_t i = 0; i < layer->ids; ++i) {
    if (ids[i] < 0 || ids[i] >= layer->axis) return 1;
    const int8_t *row = table + ids[i] * ((count + 1) / 2);
    for (int32_t k = 0; k < count; ++k) *out++ = (int8_t)ed_nibble(row, k);
  }
  return 0;
}
