/* Start of a bare-metal program on an emulated board: memory set up, the stack painted, main's answer as exit code. */
#include <stdint.h>

#include "semihosting.h"

extern uint32_t __stack_top, __stack_bottom, __handler_stack_top, __bss_start__, __bss_end__, __data_start__, __data_end__, __data_load__;
void Reset_Handler(void);
void leave_with(uint32_t code);

enum { FAULT = 99 };

void leave_with(uint32_t code) { leave(code); }

void Reset_Handler(void) {
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
  *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20; /* CPACR: the floating-point and vector unit on */
  __asm volatile("dsb\n isb");
#endif
  const uint32_t *from = &__data_load__;
  for (uint32_t *to = &__data_start__; to < &__data_end__;) *to++ = *from++;
  for (uint32_t *to = &__bss_start__; to < &__bss_end__;) *to++ = 0;
  for (uint32_t *to = &__stack_bottom; to < &__stack_top;) *to++ = STACK_PAINT;
  /* main has a stack of its own, so that its overflow is a fault whose handler still has one. */
  __asm volatile(
      "msr psp, %0\n"
      "mov r0, #2\n"
      "msr control, r0\n"
      "isb\n"
      "bl main\n"
      "bl leave_with\n"
      :
      : "r"(&__stack_top)
      : "r0", "memory");
}

static void Fault_Handler(void) { leave(FAULT); }

__attribute__((section(".vectors"), used)) static void *const vectors[16] = {
    &__handler_stack_top, Reset_Handler, Fault_Handler, Fault_Handler, Fault_Handler, Fault_Handler, Fault_Handler, 0,
    0,             0,             0,             Fault_Handler, Fault_Handler, 0,             Fault_Handler, Fault_Handler};
