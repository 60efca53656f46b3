#include "model_io.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model_spec.h"

/* BLAKE2b (RFC 7693) with an 8-byte digest and no key. */
static const uint64_t initial[8] = {
    0x6a09e667f3bcc908u, 0xbb67ae8584caa73bu, 0x3c6ef372fe94f82bu, 0xa54ff53a5f1d36f1u,
    0x510e527fade682d1u, 0x9b05688c2b3e6c1fu, 0x1f83d9abfb41bd6bu, 0x5be0cd19137e2179u};
static const uint8_t order[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4}, {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13}, {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11}, {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5}, {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0}};

static uint64_t turned(uint64_t value, int by) { return value >> by | value << (64 - by); }

static void mix(uint64_t *v, int a, int b, int c, int d, uint64_t x, uint64_t y) {
  v[a] += v[b] + x;
  v[d] = turned(v[d] ^ v[a], 32);
  v[c] += v[d];
  v[b] = turned(v[b] ^ v[c], 24);
  v[a] += v[b] + y;
  v[d] = turned(v[d] ^ v[a], 16);
  v[c] += v[d];
  v[b] = turned(v[b] ^ v[c], 63);
}

static void compress(uint64_t *h, const uint8_t *block, uint64_t bytes_so_far, int is_last) {
  uint64_t v[16], m[16];
  for (int i = 0; i < 8; ++i) {
    v[i] = h[i];
    v[i + 8] = initial[i];
  }
  v[12] ^= bytes_so_far;
  if (is_last) v[14] = ~v[14];
  for (int i = 0; i < 16; ++i) {
    m[i] = 0;
    for (int k = 7; k >= 0; --k) m[i] = m[i] << 8 | block[8 * i + k];
  }
  for (int round = 0; round < 12; ++round) {
    const uint8_t *s = order[round % 10];
    for (int i = 0; i < 4; ++i) mix(v, i, i + 4, i + 8, i + 12, m[s[2 * i]], m[s[2 * i + 1]]);
    for (int i = 0; i < 4; ++i) {
      mix(v, i, (i + 1) % 4 + 4, (i + 2) % 4 + 8, (i + 3) % 4 + 12, m[s[2 * i + 8]], m[s[2 * i + 9]]);
    }
  }
  for (int i = 0; i < 8; ++i) h[i] ^= v[i] ^ v[i + 8];
}

/* Of the seed, 8 bytes little endian, followed by the text. */
static uint64_t blake2b_64(uint64_t seed, const char *text) {
  uint64_t h[8];
  uint8_t block[128];
  size_t filled = 8;
  uint64_t total = 8;
  for (int i = 0; i < 8; ++i) h[i] = initial[i];
  h[0] ^= 0x01010000u ^ 8u;
  for (int i = 0; i < 8; ++i) block[i] = (uint8_t)(seed >> 8 * i);
  for (; *text; ++text) {
    if (filled == sizeof block) {
      compress(h, block, total, 0);
      filled = 0;
    }
    block[filled++] = (uint8_t)*text;
    ++total;
  }
  memset(block + filled, 0, sizeof block - filled);
  compress(h, block, total, 1);
  return h[0];
}

static int number_of(const char *text, double *to) {
  char *end;
  /* strtod alone would take words and hexadecimal numbers as well. */
  if (text[strspn(text, "0123456789+-.eE")] != 0) return 0;
  *to = strtod(text, &end);
  return end != text && *end == 0 && isfinite(*to);
}

static int hex_of(const char *text, uint64_t seed, uint64_t modulus, uint64_t *to) {
  uint64_t rest = 0;
  for (; *text; ++text) {
    const char c = *text;
    uint64_t digit;
    if (c >= '0' && c <= '9') {
      digit = (uint64_t)(c - '0');
    } else if ((c | 32) >= 'a' && (c | 32) <= 'f') {
      digit = (uint64_t)((c | 32) - 'a' + 10);
    } else {
      return 0;
    }
    rest = (rest * 16 + digit) % modulus;
  }
  *to = (rest + seed % modulus) % modulus;
  return 1;
}

static int direct_of(const char *text, uint64_t rows, int64_t *to) {
  uint64_t value = 0;
  for (; *text; ++text) {
    if (*text < '0' || *text > '9') return 0;
    value = value * 10 + (uint64_t)(*text - '0');
    if (value >= rows) return 0;
  }
  *to = (int64_t)value;
  return 1;
}

static int64_t word_of(const edge_category *category, const char *text) {
  size_t low = 0, high = category->word_count;
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    const int sign = strcmp(text, category->words[middle].text);
    if (sign == 0) return category->words[middle].id;
    if (sign < 0) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return category->unseen_id;
}

static int id_of(const edge_category *category, const char *text, int64_t *id) {
  uint64_t rest;
  if (*text == 0) {
    *id = category->missing_id;
    return 1;
  }
  switch (category->encoding) {
    case EDGE_VOCABULARY: *id = word_of(category, text); return 1;
    case EDGE_DIRECT: return direct_of(text, category->rows, id);
    case EDGE_HEX:
      if (!hex_of(text, category->seed, category->modulus, &rest)) return 0;
      *id = category->first_id + (int64_t)rest;
      return 1;
    default: *id = category->first_id + (int64_t)(blake2b_64(category->seed, text) % category->modulus); return 1;
  }
}

static float dense_of(const edge_dense *dense, double number) {
  if (dense->transform == EDGE_LOG1P) number = log1p(number > 0 ? number : 0);
  if (dense->transform == EDGE_SIGNED_LOG1P) number = number < 0 ? -log1p(-number) : log1p(number);
  return (float)((number - dense->mean) / dense->std);
}

int edge_encode_features(const char *const *fields, float *dense, int64_t *ids) {
  for (int i = 0; i < edge_dense_count; ++i) {
    const edge_dense *each = &edge_dense_table[i];
    double number = each->missing;
    if (*fields[each->field] && !number_of(fields[each->field], &number)) return -(1 + each->field);
    dense[i] = dense_of(each, number);
  }
  for (int i = 0; i < edge_category_count; ++i) {
    const edge_category *each = &edge_category_table[i];
    if (!id_of(each, fields[each->field], &ids[i])) return -(1 + each->field);
  }
  return 0;
}

static void put(const edge_tensor *tensor, size_t index, double value, void *to) {
  static const double low[] = {0, -128, 0, -2147483648.0, 0}, high[] = {0, 127, 255, 2147483647.0, 0};
  if (tensor->type == EDGE_FLOAT32) {
    ((float *)to)[index] = (float)value;
    return;
  }
  if (tensor->scale != 0) value = rint(value / tensor->scale) + tensor->zero_point;
  if (tensor->type != EDGE_INT64) {
    if (value < low[tensor->type]) value = low[tensor->type];
    if (value > high[tensor->type]) value = high[tensor->type];
  }
  switch (tensor->type) {
    case EDGE_INT8: ((int8_t *)to)[index] = (int8_t)value; break;
    case EDGE_UINT8: ((uint8_t *)to)[index] = (uint8_t)value; break;
    case EDGE_INT32: ((int32_t *)to)[index] = (int32_t)value; break;
    default: ((int64_t *)to)[index] = (int64_t)value; break;
  }
}

int edge_encode_row(const char *const *fields, void *const *inputs) {
  /* One more than there are, because C has no empty arrays. */
  static float dense[EDGE_DENSE_COUNT + 1];
  static int64_t ids[EDGE_CATEGORY_COUNT + 1];
  const int answer = edge_encode_features(fields, dense, ids);
  if (answer != 0) return answer;
  for (int i = 0; i < edge_dense_count; ++i) {
    put(&edge_inputs[edge_dense_input], (size_t)i, dense[i], inputs[edge_dense_input]);
  }
  for (int i = 0; i < edge_category_count; ++i) {
    put(&edge_inputs[edge_ids_input], (size_t)i, (double)ids[i], inputs[edge_ids_input]);
  }
  return 0;
}

void edge_encode_image(const uint8_t *pixels, void *input) {
  const size_t area = (size_t)edge_image_height * (size_t)edge_image_width;
  const size_t channels = (size_t)edge_image_channels;
  for (size_t place = 0; place < area; ++place) {
    for (size_t c = 0; c < channels; ++c) {
      const double value = (pixels[place * channels + c] - edge_image_mean[c]) / edge_image_std[c];
      const size_t index = edge_image_channels_first ? c * area + place : place * channels + c;
      put(&edge_inputs[edge_image_input], index, (float)value, input);
    }
  }
}

void edge_encode_values(int input, const float *values, void *to) {
  for (size_t i = 0; i < edge_inputs[input].count; ++i) put(&edge_inputs[input], i, values[i], to);
}

static float real_of(const edge_tensor *tensor, size_t index, const void *from) {
  float value;
  switch (tensor->type) {
    case EDGE_INT8: value = ((const int8_t *)from)[index]; break;
    case EDGE_UINT8: value = ((const uint8_t *)from)[index]; break;
    case EDGE_INT32: value = (float)((const int32_t *)from)[index]; break;
    case EDGE_INT64: value = (float)((const int64_t *)from)[index]; break;
    default: return ((const float *)from)[index];
  }
  return tensor->scale != 0 ? (value - (float)tensor->zero_point) * (float)tensor->scale : value;
}

void edge_decode_output(int output, const void *from, float *values) {
  for (size_t i = 0; i < edge_outputs[output].count; ++i) {
    values[i] = real_of(&edge_outputs[output], i, from);
    if (edge_output_is_logit[output]) values[i] = (float)(0.5 * (1 + tanh(0.5 * (double)values[i])));
  }
}
