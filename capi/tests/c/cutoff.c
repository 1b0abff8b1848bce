/* A store whose goto of device "disk" to snapshot 1 was cut off: refused, and then finished or undone. */
#include <stillpoint/block-snapshot.h>

#include "check.h"

int main(int argc, char **argv)
{
    Error *error = NULL;
    QEMUSnapshotInfo sn;
    unsigned char byte = 0;
    CHECK(argc == 3);
    const bool finish = strcmp(argv[2], "finish") == 0;
    StillpointStore *store = stillpoint_open(argv[1], &error);
    BlockDriverState *bs = stillpoint_attach(store, "disk", &error);
    CHECK(bs != NULL);
    memset(&sn, 0, sizeof(sn));
    strcpy(sn.name, "more");
    CHECK(bdrv_snapshot_create(bs, &sn) == -EBUSY);
    CHECK_SAYS("cut off");
    CHECK(bdrv_snapshot_goto(bs, "1", &error) == -EBUSY);
    CHECK_ERROR(error, "Failed to load snapshot");
    /* What is there is neither the one nor the other. */
    CHECK(stillpoint_pread(bs, 0, &byte, 1, &error) == -EBUSY);
    CHECK_ERROR(error, "cut off");
    CHECK(stillpoint_getlength(bs, NULL) == -EBUSY);
    CHECK((finish ? stillpoint_goto_finish(store, &error) : stillpoint_goto_undo(store, &error)) == 0);
    CHECK(stillpoint_pread(bs, 0, &byte, 1, &error) == 0 && byte == (finish ? 1 : 2));
    CHECK(stillpoint_goto_finish(store, NULL) == -ENOENT);
    CHECK(bdrv_snapshot_create(bs, &sn) == 0);
    CHECK(bdrv_snapshot_goto(bs, "1", &error) == 0);
    stillpoint_detach_all();
    stillpoint_close(store);
    puts("done");
    return 0;
}
