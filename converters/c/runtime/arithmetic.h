/* Fixed-point arithmetic with the roundings of the reference kernels; right shifts of negative numbers are arithmetic, as
 * with every compiler for ARM and x86. */
#ifndef ARITHMETIC_H
#define ARITHMETIC_H

#include <stdint.h>
#include <string.h>

/* High half of twice the product, rounded to nearest, halves upwards. */
static inline int32_t ed_high_product(int32_t a, int32_t b) {
  return (int32_t)(((int64_t)a * b + ((int64_t)1 << 30)) >> 31);
}

/* value / 2^shift, rounded to nearest, halves away from zero. */
static inline int32_t ed_round_shift(int32_t value, int32_t shift) {
  const int32_t mask = (int32_t)(((uint32_t)1 << shift) - 1);
  const int32_t threshold = (mask >> 1) + (value < 0);
  return (value >> shift) + ((value & mask) > threshold);
}

static inline int32_t ed_scaled(int32_t value, int32_t multiplier, int32_t right_shift) {
  if (right_shift <= 0) {
    return ed_high_product((int32_t)((uint32_t)value << -right_shift), multiplier);
  }
  return ed_round_shift(ed_high_product(value, multiplier), right_shift);
}

/* ed_scaled for |value| < 2^30 and right_shift >= 1, in fewer steps. */
static inline int32_t ed_scaled_plain(int32_t value, int32_t multiplier, int32_t right_shift) {
  const int32_t high = (int32_t)(((int64_t)(value * 2) * multiplier + ((int64_t)1 << 31)) >> 32);
  return (high + (high >> 31) + (((int32_t)1 << right_shift) >> 1)) >> right_shift;
}

/* value * (high * 2^31 + low) / 2^62 / 2^right_shift, rounded once, halves away from zero. */
static inline int32_t ed_scaled_once(int32_t value, int32_t high, int32_t low, int32_t right_shift) {
  const uint32_t size = value < 0 ? 0u - (uint32_t)value : (uint32_t)value;
  const uint64_t product = (uint64_t)size * (uint32_t)high + (((uint64_t)size * (uint32_t)low) >> 31);
  const int32_t shift = 31 + right_shift;
  const int32_t rounded = (int32_t)((product + ((uint64_t)1 << (shift - 1))) >> shift);
  return value < 0 ? -rounded : rounded;
}

static inline int32_t ed_clamp(int32_t value, int32_t low, int32_t high) {
  return value < low ? low : value > high ? high : value;
}

static inline uint32_t ed_word(const void *bytes) {
  uint32_t word;
  memcpy(&word, bytes, sizeof word);
  return word;
}

/* The 4-bit weight number `index` of bytes that hold two each, low half first. */
static inline int32_t ed_nibble(const int8_t *bytes, int32_t index) {
  const int32_t byte = bytes[index >> 1];
  return (index & 1) ? byte >> 4 : (int32_t)((uint32_t)byte << 28) >> 28;
}

#endif
