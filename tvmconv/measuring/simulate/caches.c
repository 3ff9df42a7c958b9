/* Two levels of cache that an emulated core's accesses go through: how many lines move.

   Called by the emulator for every access, which is why this is not Python. Eight ways, least recently
   used goes first, written lines go back when they leave; no prefetching. */
#include <stdint.h>
#include <stdlib.h>

#define WAYS 8
#define LINE_BITS 6
#define DIRTY ((uint64_t)1)

typedef struct {
    uint64_t moved;  /* lines that came from below, and lines that went back there */
    uint64_t sets;
    uint64_t *lines; /* WAYS of each set, last used first: (line + 1) * 2, + DIRTY; 0 is empty */
} level;

typedef struct {
    level first, second;
    uint64_t last; /* what was used last, and is in most cases used again */
} caches;

/* Returns whether the line was there; else it is now, and *gone is the entry that had to go. */
static int use(level *at, uint64_t entry, uint64_t dirty, uint64_t *gone) {
    uint64_t *set = at->lines + (entry >> 1) % at->sets * WAYS, found;
    int way = 0;
    while (way < WAYS - 1 && (set[way] & ~DIRTY) != entry) way++;
    found = set[way];
    for (; way > 0; way--) set[way] = set[way - 1];
    if ((found & ~DIRTY) == entry) {
        set[0] = found | dirty;
        return 1;
    }
    set[0] = entry | dirty;
    at->moved += 1 + (found & DIRTY);
    *gone = found;
    return 0;
}

static void touch(caches *all, uint64_t entry, uint64_t dirty) {
    uint64_t gone, lower;
    if (all->last == (entry | dirty)) return;
    all->last = entry | dirty;
    if (use(&all->first, entry, dirty, &gone)) return;
    if (gone & DIRTY) use(&all->second, gone & ~DIRTY, DIRTY, &lower);
    use(&all->second, entry, 0, &lower);
}

/* unicorn's uc_cb_hookmem_t; a write is UC_MEM_WRITE. */
void on_access(void *core, int kind, uint64_t address, int size, int64_t value, void *data) {
    uint64_t line = address >> LINE_BITS, last = (address + size - 1) >> LINE_BITS;
    (void)core, (void)value;
    for (; line <= last; line++) touch(data, (line + 1) << 1, kind == 17 ? DIRTY : 0);
}

/* As if bytes had been used one after the other before anybody counted. */
void pass_over(caches *all, uint64_t address, uint64_t size, int written) {
    uint64_t line = address >> LINE_BITS, last = (address + size - 1) >> LINE_BITS;
    uint64_t first = all->first.moved, second = all->second.moved;
    for (; line <= last; line++) touch(all, (line + 1) << 1, written ? DIRTY : 0);
    all->first.moved = first, all->second.moved = second;
}

static level made(uint64_t bytes) {
    level it = {0, (bytes >> LINE_BITS) / WAYS, NULL};
    it.lines = calloc(it.sets * WAYS, sizeof *it.lines);
    return it;
}

caches *create(uint64_t first_bytes, uint64_t second_bytes) {
    caches *all = calloc(1, sizeof *all);
    all->first = made(first_bytes);
    all->second = made(second_bytes);
    return all;
}

void destroy(caches *all) {
    free(all->first.lines);
    free(all->second.lines);
    free(all);
}

uint64_t moved(const caches *all, int second) {
    return second ? all->second.moved : all->first.moved;
}
