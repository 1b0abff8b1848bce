/* After fork() calls fail where they would wait for ever for threads that only the parent has. */
#define _POSIX_C_SOURCE 200809L

#include <stillpoint/block-snapshot.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static int child(StillpointStore *store, BlockDriverState *bs)
{
    Error *error = NULL;
    QEMUSnapshotInfo sn, *list = NULL;
    memset(&sn, 0, sizeof(sn));
    strcpy(sn.name, "child");
    /* Whoever hangs is ended. */
    alarm(60);
    CHECK(bdrv_snapshot_create(bs, &sn) == -EINVAL);
    CHECK_SAYS("fork");
    CHECK(bdrv_snapshot_goto(bs, "parent", &error) == -EINVAL);
    CHECK_ERROR(error, "fork");
    CHECK(bdrv_snapshot_list(bs, &list) == -EINVAL && list == NULL && bdrv_can_snapshot(bs) == 0);
    CHECK(stillpoint_attach(store, "disk", NULL) == NULL && stillpoint_add_memory("x", "", 0, NULL) == NULL);
    stillpoint_detach_all();
    stillpoint_close(store);
    return 0;
}

int main(int argc, char **argv)
{
    char folder[3000], image[3100];
    int status;
    Error *error = NULL;
    QEMUSnapshotInfo sn;
    CHECK(argc == 2 && strlen(argv[1]) < 2900);
    snprintf(folder, sizeof(folder), "%s/store", argv[1]);
    snprintf(image, sizeof(image), "%s/disk.raw", argv[1]);
    FILE *file = fopen(image, "wb");
    for (int i = 0; i < 4000000; i++) {
        fputc(i % 251, file);
    }
    CHECK(fclose(file) == 0);
    /* A daemon that forks first may go on: nothing was called yet. */
    pid_t first = fork();
    if (first == 0) {
        return stillpoint_add_memory("x", "", 0, NULL) == NULL;
    }
    CHECK(waitpid(first, &status, 0) == first && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(stillpoint_init(folder, &error) == 0);
    StillpointStore *store = stillpoint_open(folder, &error);
    CHECK(stillpoint_device_add(store, "disk", image, "raw", false, &error) == 0);
    BlockDriverState *bs = stillpoint_attach(store, "disk", &error);
    memset(&sn, 0, sizeof(sn));
    strcpy(sn.name, "parent");
    CHECK(bdrv_snapshot_create(bs, &sn) == 0);
    pid_t second = fork();
    if (second == 0) {
        return child(store, bs);
    }
    CHECK(waitpid(second, &status, 0) == second && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    /* What the child did is nothing to the parent. */
    CHECK(bdrv_snapshot_goto(bs, "parent", &error) == 0);
    stillpoint_detach_all();
    stillpoint_close(store);
    puts("done");
    return 0;
}
