/* Commands end in '%', answers in "\r\n", and each command ends in m-ready: name%, profile%, timestamp%, db load N%,
 * db HEX%, infer N [WARM-UPS]%, results%. Input bytes are those of all inputs, one after another. */
#include "serial_protocol.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"

#define LONGEST 96

static const uint32_t input_bytes[] = {EDGE_INPUT_BYTES};
static const uint32_t output_bytes[] = {EDGE_OUTPUT_BYTES};
static const uint32_t output_item_bytes[] = {EDGE_OUTPUT_ITEM_BYTES};
static const char *const output_types = EDGE_OUTPUT_TYPES; /* one letter each: b int8, B uint8, i int32, f float32 */
static const double output_scales[] = {EDGE_OUTPUT_SCALES};
static const int32_t output_zeros[] = {EDGE_OUTPUT_ZEROS};

/* Kept apart, because a run may use the memory of its inputs for other values. */
static uint8_t loaded[EDGE_ALL_INPUT_BYTES];
static uint32_t expected, received;

static void say_number(const char *head, unsigned long number, const char *tail) {
  char text[LONGEST];
  snprintf(text, sizeof text, "%s%lu%s\r\n", head, number, tail);
  edge_serial_put(text);
}

static double value_of(int output, uint32_t index) {
  const uint8_t *at = (const uint8_t *)model_output(output) + index * output_item_bytes[output];
  int32_t whole;
  float real;
  switch (output_types[output]) {
    case 'b': whole = *(const int8_t *)at; break;
    case 'B': whole = *at; break;
    case 'i': memcpy(&whole, at, sizeof whole); break;
    default: memcpy(&real, at, sizeof real); return real;
  }
  return (whole - output_zeros[output]) * output_scales[output];
}

static void say_results(void) {
  char text[LONGEST];
  const char *before = "";
  edge_serial_put("m-results-[");
  for (int i = 0; i < MODEL_OUTPUTS; ++i) {
    for (uint32_t k = 0; k < output_bytes[i] / output_item_bytes[i]; ++k) {
      snprintf(text, sizeof text, "%s%.3f", before, value_of(i, k));
      edge_serial_put(text);
      before = ",";
    }
  }
  edge_serial_put("]\r\n");
}

static int run(unsigned long count) {
  while (count-- > 0) {
    const uint8_t *at = loaded;
    for (int i = 0; i < MODEL_INPUTS; at += input_bytes[i++]) memcpy(model_input(i), at, input_bytes[i]);
    if (model_invoke() != 0) {
      edge_serial_put("e-[An id is out of range]\r\n");
      return 0;
    }
  }
  return 1;
}

static void infer(unsigned long count, unsigned long warm_ups) {
  if (received < sizeof loaded) {
    edge_serial_put("e-[No input was loaded]\r\n");
    return;
  }
  say_number("m-warmup-start-", warm_ups, "");
  if (!run(warm_ups)) return;
  edge_serial_put("m-warmup-done\r\n");
  say_number("m-infer-start-", count, "");
  const uint64_t begin = edge_microseconds();
  if (!run(count)) return;
  const uint64_t end = edge_microseconds();
  say_number("m-lap-us-", (unsigned long)begin, "");
  say_number("m-lap-us-", (unsigned long)end, "");
  edge_serial_put("m-infer-done\r\n");
  say_results();
}

static int digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

static void load(const char *word) {
  for (; word[0] && word[1]; word += 2) {
    const int high = digit(word[0]), low = digit(word[1]);
    if (high < 0 || low < 0 || received >= expected) {
      edge_serial_put("e-[Bytes must be hexadecimal, and no more than announced]\r\n");
      return;
    }
    loaded[received++] = (uint8_t)(high << 4 | low);
  }
  if (received == expected) edge_serial_put("m-load-done\r\n");
}

static void data(char *word) {
  if (word && strcmp(word, "load") == 0) {
    const char *count = strtok(0, " ");
    expected = count ? (uint32_t)strtoul(count, 0, 10) : 0;
    received = 0;
    if (expected != sizeof loaded) {
      say_number("e-[This model takes ", (unsigned long)sizeof loaded, " bytes]");
      expected = 0;
      return;
    }
    say_number("m-[Expecting ", expected, " bytes]");
  } else if (word) {
    load(word);
  } else {
    edge_serial_put("e-[Command 'db' requires a subcommand]\r\n");
  }
}

static void answer(char *line, const char *name, const char *model) {
  const char *command = strtok(line, " ");
  if (!command) return;
  if (strcmp(command, "name") == 0) {
    edge_serial_put("m-name-dut-[");
    edge_serial_put(name);
    edge_serial_put("]\r\n");
  } else if (strcmp(command, "profile") == 0) {
    edge_serial_put("m-profile-[edge-deploy serial protocol]\r\nm-model-[");
    edge_serial_put(model);
    edge_serial_put("]\r\n");
  } else if (strcmp(command, "timestamp") == 0) {
    say_number("m-lap-us-", (unsigned long)edge_microseconds(), "");
  } else if (strcmp(command, "db") == 0) {
    data(strtok(0, " "));
  } else if (strcmp(command, "infer") == 0) {
    const char *count = strtok(0, " "), *warm_ups = strtok(0, " ");
    infer(count ? strtoul(count, 0, 10) : 1, warm_ups ? strtoul(warm_ups, 0, 10) : 10);
  } else if (strcmp(command, "results") == 0) {
    say_results();
  } else {
    edge_serial_put("e-[Unknown command]\r\n");
  }
}

void edge_serial_run(const char *name, const char *model) {
  char line[LONGEST];
  uint32_t length = 0;
  edge_serial_put("m-timestamp-mode-performance\r\nm-init-done\r\nm-ready\r\n");
  for (int c = edge_serial_get(); c >= 0; c = edge_serial_get()) {
    if (c == '\r' || c == '\n') continue;
    if (c != '%') {
      if (length + 1 < LONGEST) line[length++] = (char)c;
      continue;
    }
    line[length] = 0;
    length = 0;
    answer(line, name, model);
    edge_serial_put("m-ready\r\n");
  }
}
