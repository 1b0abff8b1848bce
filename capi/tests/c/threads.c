/* Threads, each with a machine of its own, and all on one node. */
#include <pthread.h>
#include <stillpoint/block-snapshot.h>

#include "check.h"

#define THREADS 4
#define ROUNDS 50

static BlockDriverState *shared_;

static void *work(void *argument)
{
    const int number = *(int *)argument;
    char name[16];
    snprintf(name, sizeof(name), "disk%d", number);
    StillpointGraph *graph = stillpoint_graph_new();
    CHECK(graph != NULL && stillpoint_graph_enter(graph) == NULL);
    BlockDriverState *bs = stillpoint_add_memory(name, name, sizeof(name), NULL);
    CHECK(bs != NULL);
    for (int round = 0; round < ROUNDS; round++) {
        BlockDriverState *bad = bs;
        Error *error = NULL;
        QEMUSnapshotInfo sn, *list = NULL;
        memset(&sn, 0, sizeof(sn));
        snprintf(sn.name, sizeof(sn.name), "%d-%d", number, round);
        CHECK(bdrv_all_create_snapshot(&sn, NULL, 0, &bad) == 0 && bad == NULL);
        CHECK(bdrv_all_goto_snapshot(sn.name, &bad, NULL) == 0);
        CHECK(bdrv_snapshot_list(bs, &list) == round + 1);
        free(list);
        CHECK(bdrv_snapshot_create(shared_, &sn) == 0);
        CHECK(bdrv_snapshot_goto(bs, "nix", &error) == -ENOENT);
        CHECK(strstr(stillpoint_last_error(), "bdrv_snapshot_goto") != NULL);
        error_free(error);
    }
    stillpoint_graph_free(graph);
    CHECK(bdrv_can_snapshot(bs) == 0);
    return NULL;
}

int main(void)
{
    pthread_t threads[THREADS];
    int numbers[THREADS];
    QEMUSnapshotInfo *list = NULL;
    shared_ = stillpoint_add_memory("shared", "", 0, NULL);
    for (int i = 0; i < THREADS; i++) {
        numbers[i] = i;
        CHECK(pthread_create(&threads[i], NULL, work, &numbers[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    CHECK(bdrv_snapshot_list(shared_, &list) == THREADS * ROUNDS);
    /* Whoever came when: ids are in order, and each was given once. */
    for (int i = 0; i < THREADS * ROUNDS; i++) {
        CHECK(atoi(list[i].id_str) == i + 1);
    }
    free(list);
    stillpoint_detach_all();
    puts("done");
    return 0;
}
