/* A plugin of QEMU's user-mode emulation that counts the instructions a program executes.
 *
 *   cc -shared -fPIC -O2 -o count.so count_instructions.c
 *   QEMU_PLUGIN=file=count.so,out=counts.txt qemu-aarch64 PROGRAM
 *
 * Whenever the program makes the system call MARK, which Linux has not, one line is written: the call's
 * argument, all instructions so far, and the vector multiply-adds among them. A block of instructions adds
 * to the sums when it is entered, by an addition in the translated code itself. Threads share the sums
 * without a lock, so what is counted must run in one.
 *
 * QEMU's header is not packaged by Debian 12: the few declarations are those of docs/devel/tcg-plugins and
 * include/qemu/qemu-plugin.h of QEMU 7.2, whose interface has version 1; QEMU 9.1 and newer refuse that.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define MARK 0x7c0de

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_info;
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };

typedef void (*translated_t)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*called_t)(qemu_plugin_id_t, unsigned int, int64_t number, uint64_t, uint64_t, uint64_t,
                         uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, translated_t);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t, called_t);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, enum qemu_plugin_op, void *,
                                              uint64_t);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);

EXPORT int qemu_plugin_version = 1;

static uint64_t instructions, multiply_adds;
static char path[4096];

/* FMLA and FMLS of float32 or float16, whole vectors or by a lane, as tvmconv/measuring/simulate/emulator.py has it. */
static bool is_multiply_add(uint32_t word)
{
    return (word & 0xBF20FC00) == 0x0E20CC00 || (word & 0xBF60FC00) == 0x0E400C00 ||
           (word & 0xBF80B400) == 0x0F801000 || (word & 0xBFC0B400) == 0x0F001000;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
    size_t count = qemu_plugin_tb_n_insns(block), found = 0;
    for (size_t at = 0; at < count; at++) {
        uint32_t word;
        memcpy(&word, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(block, at)), sizeof word);
        found += is_multiply_add(word);
    }
    qemu_plugin_register_vcpu_tb_exec_inline(block, QEMU_PLUGIN_INLINE_ADD_U64, &instructions, count);
    if (found)
        qemu_plugin_register_vcpu_tb_exec_inline(block, QEMU_PLUGIN_INLINE_ADD_U64, &multiply_adds, found);
}

static void called(qemu_plugin_id_t id, unsigned int cpu, int64_t number, uint64_t label, uint64_t a2,
                   uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    FILE *out;
    if (number != MARK || !(out = fopen(path, "a")))
        return;
    fprintf(out, "%" PRIu64 " %" PRIu64 " %" PRIu64 "\n", label, instructions, multiply_adds);
    fclose(out);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info *info, int count,
                               char **arguments)
{
    if (count != 1 || strncmp(arguments[0], "out=", 4) || strlen(arguments[0]) >= sizeof path) {
        fprintf(stderr, "count_instructions: one argument is needed, out=FILE\n");
        return -1;
    }
    strcpy(path, arguments[0] + 4);
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, called);
    return 0;
}
