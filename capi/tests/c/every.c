/* Calls every function that the release has, in a folder that is given. */
#include <stillpoint/block-snapshot.h>

#include "check.h"

#define V STILLPOINT_QEMU_VERSION
#define DISK_BYTES 262144

static char folder_[3000];
static Error *error_;

static const char *in_folder(const char *name)
{
    static char path[4][3100];
    static int n;
    n = (n + 1) % 4;
    snprintf(path[n], sizeof(path[n]), "%s/%s", folder_, name);
    return path[n];
}

static void fill(const char *image, int byte)
{
    static char bytes[DISK_BYTES];
    FILE *file = fopen(in_folder(image), "wb");
    CHECK(file != NULL);
    memset(bytes, byte, sizeof(bytes));
    CHECK(fwrite(bytes, 1, sizeof(bytes), file) == sizeof(bytes));
    CHECK(fclose(file) == 0);
}

static int first_byte(const char *image)
{
    FILE *file = fopen(in_folder(image), "rb");
    CHECK(file != NULL);
    int byte = fgetc(file);
    CHECK(fclose(file) == 0);
    return byte;
}

static int read_byte(BlockDriverState *bs)
{
    unsigned char byte = 0;
    CHECK(stillpoint_pread(bs, 4096, &byte, 1, &error_) == 0);
    return byte;
}

/* The same call in every release. */
static int go_to(BlockDriverState *bs, const char *id)
{
#if V >= 211
    int ret = bdrv_snapshot_goto(bs, id, &error_);
    CHECK((ret < 0) == (error_ != NULL));
    error_free(error_);
    error_ = NULL;
    return ret;
#else
    return bdrv_snapshot_goto(bs, id);
#endif
}

static int delete_id(BlockDriverState *bs, const char *id)
{
#if V >= 107
    return bdrv_snapshot_delete(bs, id, NULL, NULL);
#else
    return bdrv_snapshot_delete(bs, id);
#endif
}

static int load_tmp_name(BlockDriverState *bs, const char *name)
{
#if V >= 200
    return bdrv_snapshot_load_tmp(bs, NULL, name, NULL);
#else
    return bdrv_snapshot_load_tmp(bs, name);
#endif
}

static int count(BlockDriverState *bs)
{
    QEMUSnapshotInfo *list = NULL;
    int n = bdrv_snapshot_list(bs, &list);
    CHECK((n > 0) == (list != NULL));
    free(list);
    return n;
}

static StillpointStore *open_store(void)
{
    StillpointStore *store = stillpoint_open(in_folder("nowhere"), &error_);
    CHECK(store == NULL && stillpoint_last_error() != NULL);
#if V >= 102
    CHECK(error_get_class(error_) == ERROR_CLASS_GENERIC_ERROR);
#endif
    (void)stillpoint_error_hint(error_);
    CHECK_ERROR(error_, "");
    CHECK(stillpoint_init(in_folder("store"), &error_) == 0);
    CHECK(stillpoint_last_error() == NULL);
    CHECK(stillpoint_init(in_folder("store"), NULL) < 0);
    CHECK(stillpoint_last_error() != NULL);
    store = stillpoint_open(in_folder("store"), &error_);
    CHECK(store != NULL);
    fill("a.raw", 1);
    fill("b.raw", 2);
    fill("c.raw", 3);
    CHECK(stillpoint_device_add(store, "a", in_folder("a.raw"), "raw", false, &error_) == 0);
    CHECK(stillpoint_device_add(store, "b", in_folder("b.raw"), "raw", false, &error_) == 0);
    CHECK(stillpoint_device_add(store, "c", in_folder("c.raw"), "raw", true, &error_) == 0);
    CHECK(stillpoint_device_add(store, "a", in_folder("a.raw"), "raw", false, NULL) == -EEXIST);
    CHECK(stillpoint_device_add(store, "d", in_folder("a.raw"), "vmdk", false, &error_) == -ENOTSUP);
    CHECK_ERROR(error_, "vmdk");
    CHECK(stillpoint_device_remove(store, "c", &error_) == 0);
    CHECK(stillpoint_device_remove(store, "c", NULL) == -ENOENT);
    CHECK(stillpoint_device_add(store, "c", in_folder("c.raw"), "raw", true, &error_) == 0);
    return store;
}

static void one_node(BlockDriverState *bs)
{
    static const uint8_t state[] = "the machine's state";
    uint8_t back[64];
    QEMUSnapshotInfo sn;
    CHECK(stillpoint_getlength(bs, &error_) == DISK_BYTES);
    CHECK(bdrv_can_snapshot(bs) == 1);
    CHECK(count(bs) == 0);

    memset(&sn, 0, sizeof(sn));
    strcpy(sn.name, "one");
    sn.vm_state_size = sizeof(state);
    sn.date_sec = 1700000000;
    sn.vm_clock_nsec = 5;
#if V >= 502
    sn.icount = 77;
#endif
    CHECK(bdrv_save_vmstate(bs, state, 0, (int)sizeof(state)) == (int)sizeof(state));
    CHECK(bdrv_snapshot_create(bs, &sn) == 0);
    CHECK(strcmp(sn.id_str, "1") == 0);

    fill("a.raw", 9);
    memset(&sn, 0, sizeof(sn));
    memset(sn.name, 'x', sizeof(sn.name));
    CHECK(bdrv_snapshot_create(bs, &sn) == 0);
    CHECK(strcmp(sn.id_str, "2") == 0);

    QEMUSnapshotInfo *list = NULL;
    CHECK(bdrv_snapshot_list(bs, &list) == 2);
    CHECK(strcmp(list[0].id_str, "1") == 0 && strcmp(list[0].name, "one") == 0);
    CHECK(list[0].vm_state_size == sizeof(state) && list[1].vm_state_size == 0);
    CHECK(list[0].date_sec == 1700000000 && list[0].vm_clock_nsec == 5);
    CHECK(strlen(list[1].name) == 255);
#if V >= 502
    CHECK(list[0].icount == 77 && list[1].icount == 0);
#endif
    stillpoint_free(list);

#if V >= 106
    CHECK(bdrv_snapshot_find(bs, &sn, "one") == 0);
    CHECK(strcmp(sn.id_str, "1") == 0 && sn.vm_state_size == sizeof(state));
    CHECK(bdrv_snapshot_find(bs, &sn, "2") == (V >= 400 ? -ENOENT : 0));
    CHECK(bdrv_snapshot_find(bs, &sn, "nix") == -ENOENT);
#endif
#if V >= 107
    CHECK(bdrv_snapshot_find_by_id_and_name(bs, "1", "one", &sn, &error_) && error_ == NULL);
    CHECK(!bdrv_snapshot_find_by_id_and_name(bs, "2", "one", &sn, &error_) && error_ == NULL);
    CHECK(bdrv_snapshot_find_by_id_and_name(bs, "2", NULL, &sn, NULL));
    CHECK(!bdrv_snapshot_find_by_id_and_name(bs, NULL, NULL, &sn, &error_));
    CHECK_ERROR(error_, "NULL");
#endif
#if V < 106
    char line[80];
    CHECK(bdrv_snapshot_dump(line, sizeof(line), NULL) == line && strncmp(line, "ID ", 3) == 0);
    CHECK(bdrv_snapshot_dump(line, 8, &sn) == line && strlen(line) == 7);
    CHECK(bdrv_snapshot_dump(line, 0, &sn) == NULL && bdrv_snapshot_dump(NULL, 9, &sn) == NULL);
#endif

    CHECK(first_byte("a.raw") == 9 && read_byte(bs) == 9);
    CHECK(go_to(bs, "one") == 0);
    CHECK(first_byte("a.raw") == 1 && read_byte(bs) == 1);
    memset(back, 'z', sizeof(back));
    CHECK(bdrv_load_vmstate(bs, back, 0, (int)sizeof(back)) == (int)sizeof(back));
    CHECK(memcmp(back, state, sizeof(state)) == 0 && back[63] == 0);
    CHECK(go_to(bs, "nix") == -ENOENT);

    CHECK(load_tmp_name(bs, "one") == -EINVAL);
    CHECK(stillpoint_set_node_flags(bs, STILLPOINT_NODE_READ_ONLY, &error_) == 0);
    CHECK(bdrv_can_snapshot(bs) == 0);
    CHECK(load_tmp_name(bs, "2") == (V >= 200 ? -ENOENT : 0));
#if V >= 200
    CHECK(bdrv_snapshot_load_tmp_by_id_or_name(bs, "2", &error_) == 0);
    CHECK(read_byte(bs) == 9);
    CHECK(stillpoint_snapshot_load_tmp(bs, "snapshot.id=2", &error_) == 0);
    CHECK(stillpoint_snapshot_load_tmp(bs, "snapshot.odd=2", &error_) == -EINVAL);
    CHECK_ERROR(error_, "snapshot.odd");
#endif
    CHECK(read_byte(bs) == 9);
    CHECK(stillpoint_set_node_flags(bs, STILLPOINT_NODE_IMPLICIT, &error_) == 0);
    CHECK(stillpoint_get_node_flags(bs) == STILLPOINT_NODE_IMPLICIT);
    CHECK(stillpoint_set_node_flags(bs, 1024, NULL) == -EINVAL);

    CHECK(go_to(bs, "one") == 0 && read_byte(bs) == 1);
    CHECK(delete_id(bs, "2") == 0 && count(bs) == 1);
    CHECK(delete_id(bs, "2") == -ENOENT);
#if V >= 107 && V < 400
    bdrv_snapshot_delete_by_id_or_name(bs, "one", &error_);
    CHECK(error_ == NULL && count(bs) == 0);
    bdrv_snapshot_delete_by_id_or_name(bs, "one", &error_);
    CHECK_ERROR(error_, "Can't find");
#elif V >= 400
    CHECK(bdrv_snapshot_delete(bs, NULL, "one", &error_) == 0 && count(bs) == 0);
    CHECK(bdrv_snapshot_delete(bs, "1", "one", &error_) == -ENOENT);
    CHECK_ERROR(error_, "Can't find the snapshot");
#endif
    CHECK(stillpoint_add_bitmap(bs, "dirty", &error_) == 0);
    CHECK(go_to(bs, "nix") == (V >= 211 ? -EBUSY : -ENOENT));
    CHECK(stillpoint_remove_bitmap(bs, "dirty", &error_) == 1);
}

/* The image grows after its snapshot. */
static void resized(BlockDriverState *bs)
{
    QEMUSnapshotInfo sn;
    memset(&sn, 0, sizeof(sn));
    strcpy(sn.name, "small");
    fill("a.raw", 1);
    CHECK(bdrv_snapshot_create(bs, &sn) == 0);
    FILE *file = fopen(in_folder("a.raw"), "ab");
    CHECK(file != NULL && fwrite("longer", 1, 6, file) == 6 && fclose(file) == 0);
    CHECK(stillpoint_getlength(bs, &error_) == DISK_BYTES + 6);
    CHECK(go_to(bs, "small") == (V >= 501 ? 0 : -ENOTSUP));
#if V < 501
    /* What QEMU wrote to standard error. */
    CHECK(strstr(stillpoint_last_error(), "262144 bytes") != NULL);
    fill("a.raw", 1);
#endif
    CHECK(stillpoint_getlength(bs, &error_) == DISK_BYTES);
    CHECK(delete_id(bs, sn.id_str) == 0);
}

#if V >= 600
static void group(BlockDriverState *a, BlockDriverState *b)
{
    char name_a[] = "a", name_b[] = "node-b", name_x[] = "nix";
    strList second = { NULL, name_b }, both = { &second, name_a }, none = { NULL, name_x };
    QEMUSnapshotInfo sn;
    memset(&sn, 0, sizeof(sn));
    strcpy(sn.name, "g");
    CHECK(bdrv_all_can_snapshot(false, NULL, &error_));
    CHECK(bdrv_all_find_vmstate_bs(NULL, false, NULL, &error_) == a);
    CHECK(bdrv_all_find_vmstate_bs("node-b", true, &both, &error_) == b);
    CHECK(bdrv_all_find_vmstate_bs("nix", true, &both, &error_) == NULL);
    CHECK_ERROR(error_, "vmstate block device 'nix' does not exist");
    CHECK(bdrv_all_create_snapshot(&sn, a, 0, true, &both, &error_) == 0);
    CHECK(count(a) == 1 && count(b) == 1);
    CHECK(bdrv_all_has_snapshot("g", true, &both, &error_) == 1);
    CHECK(bdrv_all_has_snapshot("h", false, NULL, &error_) == 0);
    CHECK(bdrv_all_has_snapshot("g", true, &none, &error_) == -1);
    CHECK_ERROR(error_, "No block device node 'nix'");
    CHECK(bdrv_all_can_snapshot(true, NULL, &error_) == false);
    CHECK_ERROR(error_, "At least one device");
    fill("b.raw", 8);
    CHECK(bdrv_all_goto_snapshot("g", true, &both, &error_) == 0);
    CHECK(first_byte("b.raw") == 2);
    CHECK(bdrv_all_goto_snapshot("h", false, NULL, &error_) == -1);
    CHECK_ERROR(error_, "Could not load snapshot 'h' on 'a'");
    CHECK(bdrv_all_delete_snapshot("g", true, &both, &error_) == 0);
    CHECK(bdrv_all_delete_snapshot("g", false, NULL, &error_) == 0);
    CHECK(count(a) == 0 && count(b) == 0);
    /* A list that runs in a circle, and one without a name. */
    both.next = &both;
    CHECK(bdrv_all_has_snapshot("g", true, &both, &error_) == -EINVAL);
    CHECK_ERROR(error_, "no end");
    both.next = NULL;
    both.value = NULL;
    CHECK(bdrv_all_has_snapshot("g", true, &both, &error_) == -EINVAL);
    CHECK_ERROR(error_, "NULL");
}

static void group_nulls(void)
{
    CHECK(bdrv_all_delete_snapshot(NULL, false, NULL, &error_) == -EINVAL);
    CHECK_ERROR(error_, "name is NULL");
    CHECK(bdrv_all_goto_snapshot(NULL, false, NULL, NULL) == -EINVAL);
    CHECK(bdrv_all_has_snapshot(NULL, false, NULL, NULL) == -EINVAL);
    CHECK(bdrv_all_create_snapshot(NULL, NULL, 0, false, NULL, &error_) == -EINVAL);
    CHECK_ERROR(error_, "sn_info is NULL");
}
#elif V >= 205
static int all_go_to(const char *name, BlockDriverState **bad)
{
#if V >= 211
    return bdrv_all_goto_snapshot(name, bad, NULL);
#else
    return bdrv_all_goto_snapshot(name, bad);
#endif
}

static void group(BlockDriverState *a, BlockDriverState *b)
{
    BlockDriverState *bad = b;
    QEMUSnapshotInfo sn;
    memset(&sn, 0, sizeof(sn));
    strcpy(sn.name, "g");
    CHECK(bdrv_all_can_snapshot(&bad) && bad == NULL);
    CHECK(bdrv_all_find_vmstate_bs() == a);
    CHECK(bdrv_all_create_snapshot(&sn, a, 0, &bad) == 0 && bad == NULL);
    CHECK(count(a) == 1 && count(b) == 1);
    bad = a;
    CHECK(bdrv_all_find_snapshot("g", &bad) == 0 && bad == NULL);
    CHECK(bdrv_all_find_snapshot("h", &bad) == -ENOENT && bad == a);
    fill("b.raw", 8);
    CHECK(all_go_to("g", &bad) == 0 && bad == NULL);
    CHECK(first_byte("b.raw") == 2);
    CHECK(delete_id(b, "1") == 0);
    CHECK(all_go_to("g", &bad) == -ENOENT && bad == b);
    CHECK(bdrv_all_delete_snapshot("g", &bad, &error_) == 0 && bad == NULL);
    CHECK(bdrv_all_delete_snapshot("g", &bad, &error_) == 0 && bad == NULL);
    CHECK(count(a) == 0 && count(b) == 0);
}

static void group_nulls(void)
{
    BlockDriverState *bad = NULL;
    QEMUSnapshotInfo sn;
    memset(&sn, 0, sizeof(sn));
    CHECK(!bdrv_all_can_snapshot(NULL));
    CHECK(bdrv_all_delete_snapshot("g", NULL, &error_) == -EINVAL);
    CHECK_ERROR(error_, "first_bad_bs is NULL");
    CHECK(bdrv_all_delete_snapshot(NULL, &bad, &error_) == -EINVAL);
    CHECK_ERROR(error_, "name is NULL");
    CHECK(all_go_to("g", NULL) == -EINVAL && all_go_to(NULL, &bad) == -EINVAL);
    CHECK(bdrv_all_find_snapshot("g", NULL) == -EINVAL);
    CHECK(bdrv_all_find_snapshot(NULL, &bad) == -EINVAL);
    CHECK(bdrv_all_create_snapshot(&sn, NULL, 0, NULL) == -EINVAL);
    CHECK(bdrv_all_create_snapshot(NULL, NULL, 0, &bad) == -EINVAL);
}
#else
static void group(BlockDriverState *a, BlockDriverState *b)
{
#if V < 106
    CHECK(bdrv_snapshots() == a && bdrv_is_snapshot(b) == 0);
    CHECK(stillpoint_set_node_flags(b, STILLPOINT_NODE_TEMPORARY, &error_) == 0);
    CHECK(bdrv_is_snapshot(b) == 1 && bdrv_is_snapshot(NULL) == 0);
#else
    (void)a;
    (void)b;
#endif
}

static void group_nulls(void)
{
}
#endif

/* What QEMU aborted on, or crashed. `stale` is a node that was detached. */
static void nulls(BlockDriverState *bs, BlockDriverState *stale)
{
    QEMUSnapshotInfo sn, *list = &sn;
    uint8_t byte;
    memset(&sn, 0, sizeof(sn));
    CHECK(bdrv_can_snapshot(NULL) == 0 && bdrv_can_snapshot(stale) == 0);
    CHECK(strstr(stillpoint_last_error(), "bs is no node") != NULL);
    CHECK(bdrv_snapshot_create(NULL, &sn) == -EINVAL && bdrv_snapshot_create(bs, NULL) == -EINVAL);
    CHECK(strstr(stillpoint_last_error(), "bdrv_snapshot_create: sn_info is NULL") != NULL);
    CHECK(bdrv_snapshot_create(stale, &sn) == -EINVAL);
#if V >= 106
    CHECK(bdrv_snapshot_find(NULL, &sn, "a") == -EINVAL);
    CHECK(bdrv_snapshot_find(bs, NULL, "a") == -EINVAL);
    CHECK_SAYS("sn_info is NULL");
    CHECK(bdrv_snapshot_find(bs, &sn, NULL) == -EINVAL);
    CHECK_SAYS("name is NULL");
#endif
#if V >= 107
    CHECK(!bdrv_snapshot_find_by_id_and_name(NULL, "1", NULL, &sn, &error_));
    CHECK_ERROR(error_, "bs is NULL");
    CHECK(!bdrv_snapshot_find_by_id_and_name(bs, "1", NULL, NULL, &error_));
    CHECK_ERROR(error_, "sn_info is NULL");
    CHECK(bdrv_snapshot_delete(bs, NULL, NULL, &error_) == -EINVAL);
    CHECK_ERROR(error_, "snapshot_id and name are both NULL");
#endif
#if V >= 211
    CHECK(bdrv_snapshot_goto(bs, NULL, &error_) == -EINVAL);
    CHECK_ERROR(error_, "snapshot_id is NULL");
#endif
    CHECK(go_to(NULL, "a") == -EINVAL && go_to(stale, "a") == -EINVAL && go_to(bs, NULL) == -EINVAL);
    CHECK_SAYS("snapshot_id is NULL");
    CHECK(delete_id(NULL, "1") == -EINVAL);
    CHECK_SAYS("bs is NULL");
    CHECK(delete_id(bs, NULL) == -EINVAL);
    CHECK_SAYS(V >= 107 ? "snapshot_id and name are both NULL" : "snapshot_id is NULL");
    CHECK(bdrv_snapshot_list(NULL, &list) == -EINVAL && list == &sn);
    CHECK(bdrv_snapshot_list(bs, NULL) == -EINVAL);
    CHECK_SAYS("psn_info is NULL");
    CHECK(load_tmp_name(NULL, "a") == -EINVAL);
    CHECK_SAYS("bs is NULL");
    CHECK(load_tmp_name(bs, NULL) == -EINVAL);
    CHECK_SAYS(V >= 200 ? "snapshot_id and name are both NULL" : "snapshot_name is NULL");
#if V >= 200
    CHECK(bdrv_snapshot_load_tmp_by_id_or_name(bs, NULL, &error_) == -EINVAL);
    CHECK_ERROR(error_, "id_or_name is NULL");
    CHECK(stillpoint_snapshot_load_tmp(bs, NULL, NULL) == -EINVAL);
#endif
    CHECK(bdrv_save_vmstate(bs, NULL, 0, 1) == -EINVAL && bdrv_save_vmstate(bs, &byte, -1, 1) == -EINVAL);
    CHECK(bdrv_load_vmstate(bs, NULL, 0, 1) == -EINVAL && bdrv_load_vmstate(bs, &byte, 0, -1) == -EINVAL);
    CHECK(bdrv_load_vmstate(bs, NULL, 0, 0) == 0 && bdrv_save_vmstate(NULL, &byte, 0, 1) == -EINVAL);
    CHECK(stillpoint_pread(bs, 0, NULL, 1, NULL) == -EINVAL && stillpoint_pread(bs, 0, NULL, 0, NULL) == 0);
    CHECK(stillpoint_getlength(stale, &error_) == -EINVAL);
    CHECK_ERROR(error_, "detached");
    CHECK(stillpoint_init(NULL, NULL) == -EINVAL && stillpoint_open(NULL, NULL) == NULL);
    CHECK(stillpoint_attach(NULL, "a", NULL) == NULL);
    CHECK(stillpoint_device_add(NULL, "a", "a", "raw", false, NULL) == -EINVAL);
    CHECK(stillpoint_add_memory("x", NULL, 1, NULL) == NULL && stillpoint_add_memory(NULL, "", 0, NULL) == NULL);
    CHECK(stillpoint_add_plain("x", NULL, NULL) == NULL && stillpoint_add_backend(NULL, bs, NULL) == -EINVAL);
    CHECK(stillpoint_get_device_name(NULL) == NULL && stillpoint_get_node_name(stale) == NULL);
    CHECK(stillpoint_find_node(NULL) == NULL && stillpoint_get_node_flags(NULL) == 0);
    CHECK(stillpoint_detach(stale) == -EINVAL && stillpoint_close_node(NULL) == -EINVAL);
    CHECK(error_get_pretty(NULL) == NULL);
    error_free(NULL);
    group_nulls();
}

/* A machine of its own: a filter above a disk in memory, and a raw disk. */
static void graphs(BlockDriverState *other)
{
    StillpointGraph *graph = stillpoint_graph_new();
    CHECK(graph != NULL && stillpoint_graph_enter(graph) == NULL);
    BlockDriverState *disk = stillpoint_add_memory("disk", "bytes", 5, &error_);
    BlockDriverState *top = stillpoint_add_plain("top", "raw", &error_);
    CHECK(disk != NULL && top != NULL);
    CHECK(stillpoint_add_memory("disk", "", 0, NULL) == NULL);
    const unsigned role = STILLPOINT_CHILD_FILTERED | STILLPOINT_CHILD_PRIMARY;
    CHECK(bdrv_can_snapshot(top) == 0);
#if V >= 107
    CHECK(bdrv_snapshot_delete(top, "1", NULL, &error_) == -ENOTSUP);
    CHECK(error_get_class(error_) == ERROR_CLASS_GENERIC_ERROR);
    CHECK_ERROR(error_, V >= 204 ? "Block format 'raw' used by device '' does not support internal snapshot deletion"
                                 : "Block format 'raw' used by device '' does not support feature 'internal snapshot");
#endif
    CHECK(stillpoint_add_child(top, "file", role, disk, &error_) == 0);
    CHECK(stillpoint_add_child(disk, "file", role, top, &error_) < 0);
    CHECK_ERROR(error_, "below itself");
    CHECK(stillpoint_add_child(top, "file", role, other, &error_) == -EINVAL);
    CHECK_ERROR(error_, "another graph");
    CHECK(stillpoint_add_child(top, "file", 64, disk, NULL) == -EINVAL);
    CHECK(bdrv_can_snapshot(top) == 1);
    CHECK(stillpoint_add_backend("drive0", top, &error_) == 0);
    CHECK(stillpoint_add_backend("drive0", NULL, NULL) < 0 && stillpoint_add_backend("tray", NULL, NULL) == 0);
    CHECK(stillpoint_find_device("drive0") == top && stillpoint_find_device("tray") == NULL);
    CHECK(stillpoint_find_node("disk") == disk && stillpoint_find_node("a") == NULL);
    CHECK(strcmp(stillpoint_get_device_name(top), "drive0") == 0);
    CHECK(strcmp(stillpoint_get_device_name(disk), "") == 0 && strcmp(stillpoint_get_node_name(disk), "disk") == 0);
    QEMUSnapshotInfo sn;
    memset(&sn, 0, sizeof(sn));
    strcpy(sn.name, "m");
    CHECK(bdrv_snapshot_create(top, &sn) == 0 && count(disk) == 1 && count(top) == 1);
    CHECK(bdrv_save_vmstate(top, (const uint8_t *)"s", 0, 1) == 1);
    CHECK(stillpoint_close_node(top) == 0);
    CHECK(bdrv_snapshot_create(top, &sn) == -ENOMEDIUM && bdrv_can_snapshot(top) == 0);
#if V >= 205 && V < 600
    BlockDriverState *bad = NULL;
    CHECK(bdrv_all_create_snapshot(&sn, other, 0, &bad) == -EINVAL);
#endif
    CHECK(stillpoint_add_child(top, "file", 0, disk, NULL) == -EEXIST);
    /* A chain that grows upwards until it is refused. */
    int added = 0;
    for (int nodes = 0; nodes < 5000 && added == 0; nodes++) {
        BlockDriverState *above = stillpoint_add_plain("", "raw", NULL);
        added = stillpoint_add_child(above, "file", role, top, &error_);
        top = added == 0 ? above : top;
    }
    CHECK(added == -EFBIG && bdrv_can_snapshot(top) == 0);
    CHECK_ERROR(error_, "one below the other");
    stillpoint_detach_all();
    CHECK(stillpoint_find_node("disk") == NULL && bdrv_can_snapshot(disk) == 0);
    CHECK(stillpoint_add_memory("again", "", 0, &error_) != NULL);
    CHECK(stillpoint_graph_enter(NULL) == graph && stillpoint_find_node("again") == NULL);
    CHECK(stillpoint_graph_enter(graph) == NULL);
    stillpoint_graph_free(graph);
    CHECK(stillpoint_find_node("again") == NULL && strstr(stillpoint_last_error(), "freed") != NULL);
    CHECK(stillpoint_graph_enter(NULL) == graph && stillpoint_find_device("a") != NULL);
    CHECK(stillpoint_graph_enter(graph) == NULL);
    stillpoint_graph_free(graph);
    stillpoint_graph_free(NULL);
}

int main(int argc, char **argv)
{
    CHECK(argc == 2 && strlen(argv[1]) < sizeof(folder_));
    strcpy(folder_, argv[1]);
    CHECK(strchr(stillpoint_version(), '.') != NULL);
#if V >= 200
    CHECK(strcmp(internal_snapshot_opts.name, "snapshot") == 0);
    CHECK(strcmp(internal_snapshot_opts.desc[0].name, SNAPSHOT_OPT_ID) == 0);
    CHECK(strcmp(internal_snapshot_opts.desc[1].name, SNAPSHOT_OPT_NAME) == 0);
    CHECK(internal_snapshot_opts.desc[2].name == NULL && sizeof(SNAPSHOT_OPT_BASE) == 10);
#endif
    CHECK(stillpoint_error_abort == NULL && stillpoint_error_fatal == NULL);
    Error *made = stillpoint_error_new(0, "text"), *copy = stillpoint_error_copy(made);
    stillpoint_error_prepend(made, "a ");
    stillpoint_error_append_hint(made, "hint");
    stillpoint_error_propagate(&error_, made);
    CHECK(strcmp(stillpoint_error_hint(error_), "hint") == 0);
    CHECK_ERROR(error_, "a text");
    stillpoint_error_propagate(NULL, copy);
    stillpoint_error_report(NULL);
    StillpointStore *store = open_store();
    CHECK(stillpoint_goto_finish(store, &error_) == -ENOENT);
    CHECK_ERROR(error_, "none was cut off");
    CHECK(stillpoint_goto_undo(store, NULL) == -ENOENT && stillpoint_goto_undo(NULL, NULL) == -EINVAL);
    BlockDriverState *a = stillpoint_attach(store, "a", &error_);
    CHECK(a != NULL && stillpoint_attach(store, "nix", NULL) == NULL);
    one_node(a);
    resized(a);
    BlockDriverState *b = stillpoint_attach_node(store, "b", "node-b", &error_);
    BlockDriverState *c = stillpoint_attach_node(store, "c", "node-c", &error_);
    CHECK(b != NULL && c != NULL && stillpoint_get_node_flags(c) == STILLPOINT_NODE_READ_ONLY);
    stillpoint_close(store);
    stillpoint_close(store);
    stillpoint_close(NULL);
    CHECK(stillpoint_attach(store, "a", &error_) == NULL);
    CHECK_ERROR(error_, "closed");
    group(a, b);
    CHECK(stillpoint_detach(c) == 0);
    nulls(a, c);
    graphs(a);
    CHECK(stillpoint_detach(a) == 0);
    stillpoint_detach_all();
    CHECK(error_ == NULL);
    puts("done");
    return 0;
}
