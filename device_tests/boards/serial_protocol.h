/* The line protocol of MLPerf Tiny over a serial port, for a generated C project: a board supplies the three functions
 * below and calls edge_serial_run. */
#ifndef EDGE_SERIAL_PROTOCOL_H
#define EDGE_SERIAL_PROTOCOL_H

#include <stdint.h>

/* The next character, waiting for it; below 0 ends edge_serial_run. */
int edge_serial_get(void);
void edge_serial_put(const char *text);
uint64_t edge_microseconds(void);

/* Answers commands for ever. `name` is the board's, `model` the model's, as name% and profile% tell them. */
void edge_serial_run(const char *name, const char *model);

#endif
