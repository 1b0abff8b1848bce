/* Compiled for several releases, under a name for each: what differs between them, on a node that they share. */
#include <stillpoint/block-snapshot.h>

#include "check.h"

/* Makes a snapshot with the id 7 wanted; returns the id that it got. */
int PART_create(BlockDriverState *bs, const char *name);
int PART_create(BlockDriverState *bs, const char *name)
{
    QEMUSnapshotInfo sn;
    memset(&sn, 0, sizeof(sn));
    strcpy(sn.id_str, "7");
    strncpy(sn.name, name, sizeof(sn.name) - 1);
#if STILLPOINT_QEMU_VERSION >= 502
    sn.icount = 42;
#endif
    CHECK(bdrv_snapshot_create(bs, &sn) == 0);
    return atoi(sn.id_str);
}

/* Whether find takes an id for a name. */
int PART_finds(BlockDriverState *bs, const char *id);
int PART_finds(BlockDriverState *bs, const char *id)
{
    QEMUSnapshotInfo sn;
    return bdrv_snapshot_find(bs, &sn, id) == 0;
}

/* Whether the names are those, in the release's own struct. */
int PART_lists(BlockDriverState *bs, const char *names[], int count);
int PART_lists(BlockDriverState *bs, const char *names[], int count)
{
    QEMUSnapshotInfo *list = NULL;
    int n = bdrv_snapshot_list(bs, &list), same = n == count;
    for (int i = 0; same && i < n; i++) {
        same = strcmp(list[i].name, names[i]) == 0 && list[i].date_nsec == 0;
#if STILLPOINT_QEMU_VERSION >= 502
        same = same && list[i].icount == (strcmp(names[i], "new") == 0 ? 42 : UINT64_MAX);
#endif
    }
    free(list);
    return same;
}
