/* Runs every sample of in.bin, its inputs one after another, and writes the outputs to out.bin; then how much of the stack
 * was used to stack.bin. All three lie on the host. */
#include "model.h"
#include "semihosting.h"

#define NO_FILES 3
#define TOO_FEW 4
#define BAD_ID 5

static const uint32_t input_bytes[] = {EDGE_INPUT_BYTES};
static const uint32_t output_bytes[] = {EDGE_OUTPUT_BYTES};
extern uint32_t __stack_top, __stack_bottom;

int main(void) {
  const int32_t in = open_file("in.bin", READ_BINARY), out = open_file("out.bin", WRITE_BINARY);
  if (in < 0 || out < 0) return NO_FILES;
  for (int sample = 0; sample < EDGE_SAMPLES; ++sample) {
    for (int i = 0; i < MODEL_INPUTS; ++i) {
      if (transfer(SYS_READ, in, model_input(i), input_bytes[i]) != 0) return TOO_FEW;
    }
    if (model_invoke() != 0) return BAD_ID;
    for (int i = 0; i < MODEL_OUTPUTS; ++i) {
      if (transfer(SYS_WRITE, out, model_output(i), output_bytes[i]) != 0) return NO_FILES;
    }
  }
  const uint32_t *word = &__stack_bottom;
  while (word < &__stack_top && *word == STACK_PAINT) ++word;
  const uint32_t used = (uint32_t)(&__stack_top - word) * 4;
  const int32_t stack = open_file("stack.bin", WRITE_BINARY);
  return stack < 0 || transfer(SYS_WRITE, stack, &used, sizeof used) != 0 ? NO_FILES : 0;
}
