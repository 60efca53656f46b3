"""What a bare-metal program on an emulated board needs: start-up code, linker script, the counter of instructions."""
