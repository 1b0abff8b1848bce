/* Threads use a node's handle while another detaches it and adds a second disk, which they must never touch. */
#include <pthread.h>
#include <stdatomic.h>
#include <stillpoint/block-snapshot.h>

#include "check.h"

#define THREADS 3
#define ROUNDS 300
/* Copied by each create under the graph's lock, so that calls wait for it after they looked their handle up. */
#define DISK_BYTES 262144

static char bytes_[DISK_BYTES];
static _Atomic(BlockDriverState *) a_;
static atomic_int stop_, made_;

static void *work(void *argument)
{
    while (!stop_) {
        BlockDriverState *bs = a_;
        QEMUSnapshotInfo sn;
        memset(&sn, 0, sizeof(sn));
        strcpy(sn.name, "for a");
        if (bs != NULL && bdrv_snapshot_create(bs, &sn) == 0) {
            made_++;
        } else if (bs != NULL) {
            CHECK(strstr(stillpoint_last_error(), "detached") != NULL);
        }
    }
    return argument;
}

int main(void)
{
    pthread_t threads[THREADS];
    QEMUSnapshotInfo *list = NULL;
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, work, NULL) == 0);
    }
    for (int round = 0; round < ROUNDS; round++) {
        const int before = made_;
        a_ = stillpoint_add_memory("a", bytes_, sizeof(bytes_), NULL);
        CHECK(a_ != NULL);
        while (made_ == before) {
        }
        stillpoint_detach_all();
        BlockDriverState *b = stillpoint_add_memory("b", bytes_, sizeof(bytes_), NULL);
        CHECK(bdrv_snapshot_list(b, &list) == 0);
        a_ = NULL;
        stillpoint_detach_all();
    }
    stop_ = 1;
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    puts("done");
    return 0;
}
