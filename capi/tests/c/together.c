/* Three releases in one process, on one node. */
#include <stillpoint/block-snapshot.h>

#include "check.h"

#define DECLARE(part)                                                                                                  \
    int part##_create(BlockDriverState *bs, const char *name);                                                         \
    int part##_finds(BlockDriverState *bs, const char *id);                                                            \
    int part##_lists(BlockDriverState *bs, const char *names[], int count);

DECLARE(v203)
DECLARE(v402)
DECLARE(v600)

int main(void)
{
    const char *names[] = { "old", "seed", "new" };
    BlockDriverState *bs = stillpoint_add_memory("disk", "bytes", 5, NULL);
    CHECK(bs != NULL);
    CHECK(v203_create(bs, "old") == 7);
    CHECK(v402_create(bs, "seed") == 8);
    CHECK(v600_create(bs, "new") == 9);
    CHECK(v203_finds(bs, "7") && !v402_finds(bs, "7") && !v600_finds(bs, "7"));
    CHECK(v203_lists(bs, names, 3) && v402_lists(bs, names, 3) && v600_lists(bs, names, 3));
    stillpoint_detach_all();
    puts("done");
    return 0;
}
