/* A caller that declares what it needs itself, as other languages do: the library's own symbols are those of 4.2. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct BlockDriverState BlockDriverState;
typedef struct Error Error;
typedef struct QEMUSnapshotInfo {
    char id_str[128];
    char name[256];
    uint64_t vm_state_size;
    uint32_t date_sec;
    uint32_t date_nsec;
    uint64_t vm_clock_nsec;
} QEMUSnapshotInfo;

typedef struct QemuOptsList {
    const char *name;
    const char *implied_opt_name;
    bool merge_lists;
    struct {
        const char *name;
        int type;
        const char *help;
        const char *def_value_str;
    } desc[3];
} QemuOptsList;

extern QemuOptsList internal_snapshot_opts;
static QemuOptsList *const lists_[] = { &internal_snapshot_opts };
BlockDriverState *stillpoint_add_memory(const char *node_name, const void *bytes, size_t size, Error **errp);
const char *error_get_pretty(const Error *error);
int error_get_class(const Error *error);
void error_free(Error *error);
int bdrv_snapshot_find(BlockDriverState *bs, QEMUSnapshotInfo *sn_info, const char *name);
bool bdrv_snapshot_find_by_id_and_name(BlockDriverState *bs, const char *id, const char *name,
                                       QEMUSnapshotInfo *sn_info, Error **errp);
int bdrv_can_snapshot(BlockDriverState *bs);
int bdrv_snapshot_create(BlockDriverState *bs, QEMUSnapshotInfo *sn_info);
int bdrv_snapshot_goto(BlockDriverState *bs, const char *snapshot_id, Error **errp);
int bdrv_snapshot_delete(BlockDriverState *bs, const char *snapshot_id, const char *name, Error **errp);
int bdrv_snapshot_list(BlockDriverState *bs, QEMUSnapshotInfo **psn_info);
int bdrv_snapshot_load_tmp(BlockDriverState *bs, const char *snapshot_id, const char *name, Error **errp);
int bdrv_snapshot_load_tmp_by_id_or_name(BlockDriverState *bs, const char *id_or_name, Error **errp);
bool bdrv_all_can_snapshot(BlockDriverState **first_bad_bs);
int bdrv_all_delete_snapshot(const char *name, BlockDriverState **first_bsd_bs, Error **err);
int bdrv_all_goto_snapshot(const char *name, BlockDriverState **first_bad_bs, Error **errp);
int bdrv_all_find_snapshot(const char *name, BlockDriverState **first_bad_bs);
int bdrv_all_create_snapshot(QEMUSnapshotInfo *sn, BlockDriverState *vm_state_bs, uint64_t vm_state_size,
                             BlockDriverState **first_bad_bs);
BlockDriverState *bdrv_all_find_vmstate_bs(void);

#define CHECK(holds)                                                                                                   \
    do {                                                                                                               \
        if (!(holds)) {                                                                                                \
            fprintf(stderr, "%d: %s does not hold\n", __LINE__, #holds);                                               \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

int main(void)
{
    Error *error = NULL;
    QEMUSnapshotInfo sn, *list = NULL;
    BlockDriverState *bad = NULL, *bs = stillpoint_add_memory("disk", "bytes", 5, &error);
    CHECK(strcmp(lists_[0]->name, "snapshot") == 0 && strcmp(lists_[0]->desc[1].name, "snapshot.name") == 0);
    CHECK(lists_[0]->desc[2].name == NULL);
    memset(&sn, 0, sizeof(sn));
    strcpy(sn.name, "a");
    CHECK(bs != NULL && bdrv_can_snapshot(bs) == 1 && bdrv_snapshot_create(bs, &sn) == 0);
    CHECK(bdrv_snapshot_find(bs, &sn, "a") == 0 && strcmp(sn.id_str, "1") == 0);
    CHECK(bdrv_snapshot_find_by_id_and_name(bs, NULL, "a", &sn, &error));
    CHECK(bdrv_snapshot_goto(bs, "a", &error) == 0 && bdrv_snapshot_list(bs, &list) == 1);
    free(list);
    CHECK(bdrv_snapshot_load_tmp(bs, "1", NULL, &error) < 0);
    CHECK(strcmp(error_get_pretty(error), "Device is not readonly") == 0 && error_get_class(error) == 0);
    error_free(error);
    error = NULL;
    CHECK(bdrv_snapshot_load_tmp_by_id_or_name(bs, "1", NULL) < 0);
    CHECK(bdrv_snapshot_delete(bs, "1", "a", &error) == 0);
    CHECK(bdrv_all_can_snapshot(&bad) && bdrv_all_find_vmstate_bs() == bs);
    CHECK(bdrv_all_create_snapshot(&sn, bs, 0, &bad) == 0 && bdrv_all_find_snapshot("a", &bad) == 0);
    CHECK(bdrv_all_goto_snapshot("a", &bad, &error) == 0 && bdrv_all_goto_snapshot("b", &bad, NULL) < 0 && bad == bs);
    CHECK(bdrv_all_delete_snapshot("a", &bad, &error) == 0 && bdrv_snapshot_list(bs, &list) == 0);
    puts("done");
    return 0;
}
