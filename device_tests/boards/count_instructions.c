/* A TCG plugin for QEMU: instructions executed in all and by function. Its interface (version 1) is declared by hand,
 * because Debian's QEMU loads plugins and ships no header for them. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define INLINE_ADD 0

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;

extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct qemu_plugin_tb *));
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int, void *, uint64_t);
extern void qemu_plugin_register_atexit_cb(plugin_id, void (*)(plugin_id, void *), void *);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern const char *qemu_plugin_insn_symbol(const struct qemu_plugin_insn *);

EXPORT int qemu_plugin_version = 1;

typedef struct block {
  char function[64];
  uint64_t executed;
  struct block *next;
} block;

static block *first;
static char path[4096];

static void on_translation(plugin_id id, struct qemu_plugin_tb *tb) {
  (void)id;
  block *made = calloc(1, sizeof *made);
  if (made == NULL) return;
  const char *symbol = qemu_plugin_insn_symbol(qemu_plugin_tb_get_insn(tb, 0));
  strncpy(made->function, symbol != NULL ? symbol : "?", sizeof made->function - 1);
  made->next = first;
  first = made;
  qemu_plugin_register_vcpu_tb_exec_inline(tb, INLINE_ADD, &made->executed, qemu_plugin_tb_n_insns(tb));
}

static void at_exit_of_emulator(plugin_id id, void *unused) {
  (void)id;
  (void)unused;
  FILE *out = fopen(path, "w");
  if (out == NULL) return;
  for (block *b = first; b != NULL; b = b->next) fprintf(out, "%llu %s\n", (unsigned long long)b->executed, b->function);
  fclose(out);
}

EXPORT int qemu_plugin_install(plugin_id id, const void *info, int count, char **arguments) {
  (void)info;
  for (int i = 0; i < count; ++i) {
    if (strncmp(arguments[i], "out=", 4) == 0) strncpy(path, arguments[i] + 4, sizeof path - 1);
  }
  qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
  qemu_plugin_register_atexit_cb(id, at_exit_of_emulator, NULL);
  return 0;
}
