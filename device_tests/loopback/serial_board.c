/* The serial protocol on a host: standard input and output are the line. */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "serial_protocol.h"

int edge_serial_get(void) {
  unsigned char c;
  return read(0, &c, 1) == 1 ? c : -1;
}

void edge_serial_put(const char *text) {
  fputs(text, stdout);
  fflush(stdout);
}

uint64_t edge_microseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

int main(void) {
  edge_serial_run("LOOPBACK", "model");
  return 0;
}
