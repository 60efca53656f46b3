/* Start of a bare-metal program on an emulated board: memory set up, semihosting opened, main's answer as exit code. */
#include <stdint.h>

extern uint32_t __stack_top, __bss_start__, __bss_end__, __data_start__, __data_end__, __data_load__;
extern void initialise_monitor_handles(void);
extern void __libc_init_array(void);
int main(void);

void _init(void);
void _fini(void);
void _init(void) {}
void _fini(void) {}

enum { SYS_EXIT_EXTENDED = 0x20, APPLICATION_EXIT = 0x20026, FAULT = 99 };

static void leave(uint32_t code) {
  uint32_t block[2] = {APPLICATION_EXIT, code};
  register uint32_t operation __asm("r0") = SYS_EXIT_EXTENDED;
  register uint32_t *argument __asm("r1") = block;
  __asm volatile("bkpt 0xab" ::"r"(operation), "r"(argument) : "memory");
  for (;;) {
  }
}

void Reset_Handler(void);
void Reset_Handler(void) {
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
  *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20; /* CPACR: the floating-point and vector unit on */
  __asm volatile("dsb\n isb");
#endif
  const uint32_t *from = &__data_load__;
  for (uint32_t *to = &__data_start__; to < &__data_end__;) *to++ = *from++;
  for (uint32_t *to = &__bss_start__; to < &__bss_end__;) *to++ = 0;
  initialise_monitor_handles();
  __libc_init_array();
  leave((uint32_t)main());
}

static void Fault_Handler(void) { leave(FAULT); }

__attribute__((section(".vectors"), used)) static void *const vectors[16] = {
    &__stack_top,  Reset_Handler, Fault_Handler, Fault_Handler, Fault_Handler, Fault_Handler, Fault_Handler, 0,
    0,             0,             0,             Fault_Handler, Fault_Handler, 0,             Fault_Handler, Fault_Handler};
