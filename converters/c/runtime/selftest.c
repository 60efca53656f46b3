/* Runs the reference vectors: 0 where every output agrees in every bit. */
#include <stdio.h>
#include <string.h>

#include "model.h"
#include "vectors.h"

int main(void) {
  int wrong = 0;
  for (uint32_t v = 0; v < VECTORS; ++v) {
    for (int i = 0; i < MODEL_INPUTS; ++i) {
      memcpy(model_input(i), vector_inputs[i] + v * vector_inputs_bytes[i], vector_inputs_bytes[i]);
    }
    int differs = model_invoke();
    for (int i = 0; i < MODEL_OUTPUTS; ++i) {
      differs |= memcmp(model_output(i), vector_outputs[i] + v * vector_outputs_bytes[i], vector_outputs_bytes[i]) != 0;
    }
    wrong += differs != 0;
  }
  printf("selftest: %d of %d vectors agree\n", VECTORS - wrong, VECTORS);
  return wrong != 0;
}
