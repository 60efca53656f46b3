/* Start of a bare-metal program on an emulated board: memory set up, the stack painted, main's answer as exit code. */
#include <stdint.h>

#include "semihosting.h"

extern uint32_t __stack_top, __stack_bottom, __bss_start__, __bss_end__, __data_start__, __data_end__, __data_load__;
int main(void);
void Reset_Handler(void);

enum { FAULT = 99 };

void Reset_Handler(void) {
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
  *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20; /* CPACR: the floating-point and vector unit on */
  __asm volatile("dsb\n isb");
#endif
  const uint32_t *from = &__data_load__;
  for (uint32_t *to = &__data_start__; to < &__data_end__;) *to++ = *from++;
  for (uint32_t *to = &__bss_start__; to < &__bss_end__;) *to++ = 0;
  for (uint32_t *to = &__stack_bottom; to < &__stack_top - 16;) *to++ = STACK_PAINT;
  leave((uint32_t)main());
}

static void Fault_Handler(void) { leave(FAULT); }

__attribute__((section(".vectors"), used)) static void *const vectors[16] = {
    &__stack_top,  Reset_Handler, Fault_Handler, Fault_Handler, Fault_Handler, Fault_Handler, Fault_Handler, 0,
    0,             0,             0,             Fault_Handler, Fault_Handler, 0,             Fault_Handler, Fault_Handler};
