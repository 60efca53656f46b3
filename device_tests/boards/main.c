/* Runs every sample of in.bin, inputs one after another, and appends the outputs to out.bin; both lie on the host. */
#include <stdio.h>

#include "model.h"

#define TOO_FEW 3
#define NO_FILES 4
#define BAD_ID 5

static const uint32_t input_bytes[] = {EDGE_INPUT_BYTES};
static const uint32_t output_bytes[] = {EDGE_OUTPUT_BYTES};

int main(void) {
  FILE *in = fopen("in.bin", "rb"), *out = fopen("out.bin", "wb");
  if (in == NULL || out == NULL) return NO_FILES;
  for (int sample = 0; sample < EDGE_SAMPLES; ++sample) {
    for (int i = 0; i < MODEL_INPUTS; ++i) {
      if (fread(model_input(i), 1, input_bytes[i], in) != input_bytes[i]) return TOO_FEW;
    }
    if (model_invoke() != 0) return BAD_ID;
    for (int i = 0; i < MODEL_OUTPUTS; ++i) {
      if (fwrite(model_output(i), 1, output_bytes[i], out) != output_bytes[i]) return NO_FILES;
    }
  }
  return fclose(out) == 0 ? 0 : NO_FILES;
}
