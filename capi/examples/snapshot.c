/*
 * A snapshot of one disk and back, as code for QEMU 4.2 writes it.
 *
 *     cc snapshot.c $(pkg-config --cflags --libs stillpoint) -o snapshot
 *     ./snapshot STORE IMAGE
 */
#include <stillpoint/block-snapshot.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static int failed(const char *doing, Error *error)
{
    fprintf(stderr, "%s: %s\n", doing, error ? error_get_pretty(error) : stillpoint_last_error());
    error_free(error);
    return EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    Error *error = NULL;
    if (argc != 3) {
        fprintf(stderr, "usage: %s STORE IMAGE\n", argv[0]);
        return 2;
    }
    if (stillpoint_init(argv[1], &error) < 0) {
        return failed("making the store", error);
    }
    StillpointStore *store = stillpoint_open(argv[1], &error);
    if (!store || stillpoint_device_add(store, "disk", argv[2], "raw", false, &error) < 0) {
        return failed("opening the store", error);
    }
    BlockDriverState *bs = stillpoint_attach(store, "disk", &error);
    if (!bs) {
        return failed("attaching the disk", error);
    }

    QEMUSnapshotInfo sn = { .name = "monday", .date_sec = (uint32_t)time(NULL) };
    if (bdrv_snapshot_create(bs, &sn) < 0) {
        return failed("create", NULL);
    }
    printf("made %s, id %s\n", sn.name, sn.id_str);

    /* The disk changes here. */

    if (bdrv_snapshot_goto(bs, "monday", &error) < 0) {
        return failed("goto", error);
    }
    QEMUSnapshotInfo *list = NULL;
    int count = bdrv_snapshot_list(bs, &list);
    for (int i = 0; i < count; i++) {
        printf("%s\t%s\n", list[i].id_str, list[i].name);
    }
    free(list);

    stillpoint_detach(bs);
    stillpoint_close(store);
    return EXIT_SUCCESS;
}
