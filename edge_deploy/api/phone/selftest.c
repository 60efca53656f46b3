/* Holds model_io against rows and pixels whose encoding the converter computed. Exit code 0: all equal. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model_spec.h"
#include "selftest_vectors.h"

static int failures;

static void expect(int is_right, const char *what, int index) {
  if (is_right) return;
  if (failures++ < 10) printf("selftest: %s %d differs\n", what, index);
}

#if EDGE_TEST_ROWS > 0
static void test_rows(void) {
  for (int row = 0; row < EDGE_TEST_ROWS; ++row) {
    static float dense[EDGE_DENSE_COUNT + 1];
    static int64_t ids[EDGE_CATEGORY_COUNT + 1];
    expect(edge_encode_features(test_fields[row], dense, ids) == 0, "row", row);
    for (int i = 0; i < edge_dense_count; ++i) {
      expect(fabs((double)dense[i] - test_dense[row][i]) <= 1e-5 * (1 + fabs(test_dense[row][i])), "dense of row", row);
    }
    for (int i = 0; i < edge_category_count; ++i) expect(ids[i] == test_ids[row][i], "id of row", row);
  }
}
#endif

#if EDGE_TEST_PIXELS > 0
static double value_at(const void *input, size_t index) {
  switch (edge_inputs[edge_image_input].type) {
    case EDGE_INT8: return ((const int8_t *)input)[index];
    case EDGE_UINT8: return ((const uint8_t *)input)[index];
    case EDGE_INT32: return ((const int32_t *)input)[index];
    case EDGE_INT64: return (double)((const int64_t *)input)[index];
    default: return ((const float *)input)[index];
  }
}

static void test_image(void) {
  static uint8_t pixels[EDGE_IMAGE_PIXELS];
  static double input[EDGE_IMAGE_PIXELS]; /* as wide as the widest type */
  /* The same sequence as in Python: x = (x * 1103515245 + 12345) mod 2^31, and its bits 16 to 23. */
  uint32_t x = 1;
  for (int i = 0; i < EDGE_IMAGE_PIXELS; ++i) {
    x = (x * 1103515245u + 12345u) & 0x7fffffffu;
    pixels[i] = (uint8_t)(x >> 16);
  }
  edge_encode_image(pixels, input);
  for (int i = 0; i < EDGE_TEST_PIXELS; ++i) {
    const double want = test_values[i], got = value_at(input, (size_t)test_places[i]);
    expect(fabs(got - want) <= 1e-5 * (1 + fabs(want)), "pixel", i);
  }
}
#endif

int main(void) {
#if EDGE_TEST_ROWS > 0
  test_rows();
#endif
#if EDGE_TEST_PIXELS > 0
  test_image();
#endif
  for (int i = 0; i < edge_output_count; ++i) {
    static uint8_t raw[EDGE_MOST_OUTPUT_BYTES];
    static float values[EDGE_MOST_OUTPUT_BYTES];
    memset(raw, 1, sizeof raw);
    edge_decode_output(i, raw, values);
    expect(isfinite(values[0]), "output", i);
  }
  printf("selftest: %d rows, %d pixels, %d failures\n", EDGE_TEST_ROWS, EDGE_TEST_PIXELS, failures);
  return failures != 0;
}
