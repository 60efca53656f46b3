/* Files of the host and the exit code, by ARM's semihosting calls: no stdio, whose buffers would count as the model's. */
#ifndef SEMIHOSTING_H
#define SEMIHOSTING_H

#include <stdint.h>

#define STACK_PAINT 0xA5A5A5A5u

enum { SYS_OPEN = 1, SYS_CLOSE = 2, SYS_WRITE = 5, SYS_READ = 6, SYS_EXIT_EXTENDED = 0x20, APPLICATION_EXIT = 0x20026 };
enum { READ_BINARY = 1, WRITE_BINARY = 5 };

static inline int32_t host_call(uint32_t number, const uint32_t *arguments) {
  register uint32_t operation __asm("r0") = number;
  register const uint32_t *block __asm("r1") = arguments;
  __asm volatile("bkpt 0xab" : "+r"(operation) : "r"(block) : "memory");
  return (int32_t)operation;
}

static inline int32_t open_file(const char *name, uint32_t mode) {
  uint32_t length = 0;
  while (name[length] != 0) ++length;
  const uint32_t arguments[3] = {(uint32_t)name, mode, length};
  return host_call(SYS_OPEN, arguments);
}

/* The number of bytes that were not read, or not written. */
static inline int32_t transfer(uint32_t number, int32_t file, const void *bytes, uint32_t count) {
  const uint32_t arguments[3] = {(uint32_t)file, (uint32_t)bytes, count};
  return host_call(number, arguments);
}

static inline void leave(uint32_t code) {
  const uint32_t arguments[2] = {APPLICATION_EXIT, code};
  host_call(SYS_EXIT_EXTENDED, arguments);
  for (;;) {
  }
}

#endif
