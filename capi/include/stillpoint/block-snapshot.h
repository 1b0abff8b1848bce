/*
 * QEMU's snapshot API by release, over the devices of a stillpoint store.
 *
 * STILLPOINT_QEMU_VERSION chooses the release whose prototypes, struct and behaviour this file gives: a hundred times
 * its first number and its second, 402 for 4.2, 1001 for 10.1; any release from 1.0 (100) to 11.1 (1101). The default is
 * 402. Define it before the first include, or with -DSTILLPOINT_QEMU_VERSION=600.
 *
 * The functions of QEMU are inline functions here, which pass the release on to the library. So files that were compiled
 * for different releases can be linked into one program, and see the same nodes.
 *
 * Rules for all functions:
 *  - Numbers: a negative one is -errno where the release returns one, else -1.
 *  - -ENOENT is a snapshot that there is not; -ENOMEDIUM a closed node, or a device or image that is gone; -EBUSY what somebody
 *    else holds, or what something must be done about first, which stillpoint_error_hint() or stillpoint_last_error() says.
 *  - NULL, or a node that there is not or no more, where QEMU aborted or crashed: -EINVAL, false or NULL, nothing is
 *    done, and the Error object and stillpoint_last_error() say which argument it was. What QEMU took NULL for may be
 *    NULL: errp always, and id or name where the other is given.
 *  - errp: NULL, or the address of an Error * that is NULL. An object put there is the caller's, who frees it with
 *    error_free(). One that is there already stays, and the new one is dropped.
 *  - Strings that are passed in are read during the call only. Ids and names are cut to 127 and 255 bytes where they are
 *    stored, as by QEMU. Strings that are returned belong to the library; each function says for how long.
 *  - Nodes are handles: a stale one is an error, and nothing worse.
 *  - Any thread may call. Calls on the nodes of one graph wait for each other, those on different graphs do not.
 *  - After fork() the child can only exit or exec if the parent has called a function here: its own calls are -EINVAL.
 *    Daemons fork first.
 *  - No panic leaves the library: what breaks inside it is -EIO and an Error object.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#ifndef STILLPOINT_BLOCK_SNAPSHOT_H
#define STILLPOINT_BLOCK_SNAPSHOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifndef STILLPOINT_QEMU_VERSION
#define STILLPOINT_QEMU_VERSION 402
#endif

#if STILLPOINT_QEMU_VERSION < 100 || STILLPOINT_QEMU_VERSION > 1101 \
    || STILLPOINT_QEMU_VERSION % 100 > 12 \
    || (STILLPOINT_QEMU_VERSION / 100 == 1 && STILLPOINT_QEMU_VERSION > 107) \
    || (STILLPOINT_QEMU_VERSION / 100 == 3 && STILLPOINT_QEMU_VERSION > 301) \
    || (STILLPOINT_QEMU_VERSION >= 400 && STILLPOINT_QEMU_VERSION % 100 > 2)
#error "STILLPOINT_QEMU_VERSION is no QEMU release: 402 is 4.2. \
Eras begin with 100 106 107 200 205 211 400 402 501 502 600 1001."
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Types ------------------------------------------------------------------------------------------------------------ */

/* A node of a graph. */
typedef struct BlockDriverState BlockDriverState;

/* What went wrong. */
typedef struct Error Error;

/* An open store. */
typedef struct StillpointStore StillpointStore;

/* The nodes of one machine. */
typedef struct StillpointGraph StillpointGraph;

/* A snapshot. */
typedef struct QEMUSnapshotInfo {
    char id_str[128]; /* create writes it; through 2.3 it also reads it, empty for the next free one */
    char name[256];   /* need not be unique */
#if STILLPOINT_QEMU_VERSION == 100
    uint32_t vm_state_size; /* bytes; 0 for a snapshot of the disk alone */
#else
    uint64_t vm_state_size; /* bytes; 0 for a snapshot of the disk alone */
#endif
    uint32_t date_sec;      /* UTC, seconds since 1970 */
    uint32_t date_nsec;     /* nanoseconds of that second */
    uint64_t vm_clock_nsec; /* nanoseconds since boot */
#if STILLPOINT_QEMU_VERSION >= 502
    uint64_t icount; /* instructions; all ones for none */
#endif
} QEMUSnapshotInfo;

#if STILLPOINT_QEMU_VERSION >= 600
/* A list of node names. */
typedef struct strList {
    struct strList *next;
    char *value;
} strList;
#endif

#if STILLPOINT_QEMU_VERSION >= 102
/* All errors of this API are generic ones, in every release that has classes. */
typedef enum ErrorClass {
    ERROR_CLASS_GENERIC_ERROR = 0
} ErrorClass;
#endif

#if STILLPOINT_QEMU_VERSION >= 200
#define SNAPSHOT_OPT_BASE "snapshot."
#define SNAPSHOT_OPT_ID "snapshot.id"
#define SNAPSHOT_OPT_NAME "snapshot.name"

/* An option; type 0 is a string. */
typedef struct QemuOptDesc {
    const char *name;
    int type;
    const char *help;
    const char *def_value_str;
} QemuOptDesc;

/* The options that there are; the last one has no name. To be read only. */
typedef struct QemuOptsList {
    const char *name;
    const char *implied_opt_name;
    bool merge_lists;
    QemuOptDesc desc[3];
} QemuOptsList;

extern QemuOptsList internal_snapshot_opts;
#endif

/* Errors ----------------------------------------------------------------------------------------------------------- */

const char *stillpoint_error_get_pretty(const Error *error);
int stillpoint_error_get_class(const Error *error);
void stillpoint_error_free(Error *error);

/* What "qapi/error.h" is made of: there are QEMU's names for these. NULL is no object. */
Error *stillpoint_error_new(int error_class, const char *text);
Error *stillpoint_error_copy(const Error *error);
void stillpoint_error_propagate(Error **errp, Error *error); /* takes the object */
void stillpoint_error_prepend(Error *error, const char *text);
void stillpoint_error_append_hint(Error *error, const char *text);
void stillpoint_error_report(Error *error); /* to standard error, and frees it */

/* As errp: an error that is put there aborts the program, or ends it with exit code 1. */
extern Error *stillpoint_error_abort;
extern Error *stillpoint_error_fatal;

/* What can be done about it, or NULL. It belongs to the object. */
const char *stillpoint_error_hint(const Error *error);

/*
 * Everything that is known about the last call of this thread, with causes that no Error object has room for; NULL if
 * that call did not fail. It belongs to the library until the thread's next call.
 */
const char *stillpoint_last_error(void);

/* The text, without a line break. It belongs to the object; of NULL it is NULL. */
static inline const char *error_get_pretty(const Error *error)
{
    return stillpoint_error_get_pretty(error);
}

/* Frees an object; NULL is none. */
static inline void error_free(Error *error)
{
    stillpoint_error_free(error);
}

#if STILLPOINT_QEMU_VERSION >= 102
static inline ErrorClass error_get_class(const Error *error)
{
    return (ErrorClass)stillpoint_error_get_class(error);
}
#endif

/* Stores and their devices ----------------------------------------------------------------------------------------- */

/* The version of the library, "0.1.0". It is a constant. */
const char *stillpoint_version(void);

/* Makes a store in a folder that is empty or not there yet. 0, or -errno. */
int stillpoint_init(const char *folder, Error **errp);

/* Opens a store. NULL if that fails. The caller closes it. */
StillpointStore *stillpoint_open(const char *folder, Error **errp);

/* Closes a store. Nodes attached from it keep working, and keep it open, until they are detached. NULL is none. */
void stillpoint_close(StillpointStore *store);

/* Adds a device to the store for good: an image file or block device of a format ("raw"), under a name. 0, or -errno. */
int stillpoint_device_add(StillpointStore *store, const char *device, const char *image, const char *format,
                          bool read_only, Error **errp);

/* Removes a device without snapshots from the store; its image is not touched. 0, or -errno. */
int stillpoint_device_remove(StillpointStore *store, const char *device, Error **errp);

/*
 * A goto that was cut off, by a crash or a kill, leaves its devices marked, and calls that need their images are -EBUSY.
 * These complete all such gotos, so that the devices hold the snapshots that were gone to, or take them back, so that
 * they hold what they held before. 0; -ENOENT if none was cut off; or -errno.
 */
int stillpoint_goto_finish(StillpointStore *store, Error **errp);
int stillpoint_goto_undo(StillpointStore *store, Error **errp);

/* Graphs ----------------------------------------------------------------------------------------------------------- */

/*
 * Functions without a node in their arguments work on the graph that the thread is in: at first the process's own, which
 * all threads share. Programs that look after several machines make a graph for each.
 */

/* A graph without nodes. The caller frees it. */
StillpointGraph *stillpoint_graph_new(void);

/* Frees a graph and detaches its nodes. NULL is none. Calls of threads that are still in it fail with -EINVAL. */
void stillpoint_graph_free(StillpointGraph *graph);

/* From here on this thread is in that graph, or for NULL in the process's own. Returns the one it was in. */
StillpointGraph *stillpoint_graph_enter(StillpointGraph *graph);

/*
 * Functions that add a node return NULL if they fail. The node lives until it is detached, all nodes of its graph are, or
 * its graph is freed. Another node of the same name is refused; many may have the empty name.
 */

/* A device of the store as -drive adds it: a node of that name below a backend of that name. */
BlockDriverState *stillpoint_attach(StillpointStore *store, const char *device, Error **errp);

/* A device of the store as -blockdev adds it: a node without a backend. */
BlockDriverState *stillpoint_attach_node(StillpointStore *store, const char *device, const char *node_name,
                                         Error **errp);

/* A disk in memory with snapshots, with a copy of these bytes. */
BlockDriverState *stillpoint_add_memory(const char *node_name, const void *bytes, size_t size, Error **errp);

/* A node of a format without snapshots: a raw disk, a filter, a protocol. It has no bytes of its own. */
BlockDriverState *stillpoint_add_plain(const char *node_name, const char *format, Error **errp);

/* A backend, the device of a guest, that holds a node, or for NULL nothing: an empty tray. 0, or -errno. */
int stillpoint_add_backend(const char *name, BlockDriverState *root, Error **errp);

/* What a child is for. */
#define STILLPOINT_CHILD_DATA 1u     /* guest data */
#define STILLPOINT_CHILD_METADATA 2u /* the format's own data */
#define STILLPOINT_CHILD_FILTERED 4u /* what a filter passes through */
#define STILLPOINT_CHILD_COW 8u      /* a backing file */
#define STILLPOINT_CHILD_PRIMARY 16u /* the most important child */

/*
 * Makes a node the child of another in the same graph. The child named "file" is what operations fall back to where the
 * parent's format lacks them; from 5.2 on it is the primary one. A parent has one child of a name (-EEXIST), and at most
 * 256 nodes are one below the other (-EFBIG). 0, or -errno.
 */
int stillpoint_add_child(BlockDriverState *parent, const char *name, unsigned role, BlockDriverState *child,
                         Error **errp);

/* A dirty bitmap, which blocks goto from 2.11 on. 0, or -errno; remove returns how many of that name there were. */
int stillpoint_add_bitmap(BlockDriverState *bs, const char *name, Error **errp);
int stillpoint_remove_bitmap(BlockDriverState *bs, const char *name, Error **errp);

/* What a node is, apart from its driver. */
#define STILLPOINT_NODE_READ_ONLY 1u /* opened read-only */
#define STILLPOINT_NODE_INACTIVE 2u  /* handed over in a migration */
#define STILLPOINT_NODE_EJECTED 4u   /* its tray has no medium */
#define STILLPOINT_NODE_TEMPORARY 8u /* opened with -snapshot */
#define STILLPOINT_NODE_IMPLICIT 16u /* not made by the monitor: seen by group functions only through a backend */

/* The node's bits, 0 for what is no node; and sets all of them. 0, or -errno. */
unsigned stillpoint_get_node_flags(BlockDriverState *bs);
int stillpoint_set_node_flags(BlockDriverState *bs, unsigned flags, Error **errp);

/* Closes what is behind a node, so that it has "no medium". The node stays. 0, or -EINVAL. */
int stillpoint_close_node(BlockDriverState *bs);

/* Takes a node out of its graph; backends that held it are empty. 0, or -EINVAL. */
int stillpoint_detach(BlockDriverState *bs);

/* Takes all nodes and backends out of the graph that the thread is in. */
void stillpoint_detach_all(void);

/* The node of a name, and what the backend of a name holds, in the graph that the thread is in; or NULL. */
BlockDriverState *stillpoint_find_node(const char *node_name);
BlockDriverState *stillpoint_find_device(const char *name);

/* The name of the backend that holds the node, "" for none; the node's name. They live until the node is detached. */
const char *stillpoint_get_device_name(BlockDriverState *bs);
const char *stillpoint_get_node_name(BlockDriverState *bs);

/* Bytes of the disk, or -errno. */
int64_t stillpoint_getlength(BlockDriverState *bs, Error **errp);

/* Reads the disk, or the snapshot that load_tmp chose; beyond the end there are zeros. 0, or -errno. */
int stillpoint_pread(BlockDriverState *bs, uint64_t offset, void *buf, size_t bytes, Error **errp);

/* Entry points, which all releases share ---------------------------------------------------------------------------- */

struct strList;

int stillpoint_bdrv_can_snapshot(int version, BlockDriverState *bs);
int stillpoint_bdrv_snapshot_create(int version, BlockDriverState *bs, void *sn_info);
int stillpoint_bdrv_snapshot_find(int version, BlockDriverState *bs, void *sn_info, const char *name);
bool stillpoint_bdrv_snapshot_find_by_id_and_name(int version, BlockDriverState *bs, const char *id, const char *name,
                                                  void *sn_info, Error **errp);
int stillpoint_bdrv_snapshot_goto(int version, BlockDriverState *bs, const char *snapshot_id, Error **errp);
int stillpoint_bdrv_snapshot_delete(int version, BlockDriverState *bs, const char *snapshot_id, const char *name,
                                    Error **errp);
int stillpoint_bdrv_snapshot_delete_by_id_or_name(int version, BlockDriverState *bs, const char *id_or_name,
                                                  Error **errp);
int stillpoint_bdrv_snapshot_list(int version, BlockDriverState *bs, void *psn_info);
int stillpoint_bdrv_snapshot_load_tmp(int version, BlockDriverState *bs, const char *snapshot_id, const char *name,
                                      Error **errp);
int stillpoint_bdrv_snapshot_load_tmp_by_id_or_name(int version, BlockDriverState *bs, const char *id_or_name,
                                                    Error **errp);
bool stillpoint_bdrv_all_can_snapshot(int version, bool has_devices, const struct strList *devices,
                                      BlockDriverState **first_bad_bs, Error **errp);
int stillpoint_bdrv_all_delete_snapshot(int version, const char *name, bool has_devices,
                                        const struct strList *devices, BlockDriverState **first_bad_bs,
                                        Error **errp);
int stillpoint_bdrv_all_goto_snapshot(int version, const char *name, bool has_devices, const struct strList *devices,
                                      BlockDriverState **first_bad_bs, Error **errp);
int stillpoint_bdrv_all_find_snapshot(int version, const char *name, BlockDriverState **first_bad_bs);
int stillpoint_bdrv_all_has_snapshot(int version, const char *name, bool has_devices, const struct strList *devices,
                                     Error **errp);
int stillpoint_bdrv_all_create_snapshot(int version, void *sn_info, BlockDriverState *vm_state_bs,
                                        uint64_t vm_state_size, bool has_devices, const struct strList *devices,
                                        BlockDriverState **first_bad_bs, Error **errp);
BlockDriverState *stillpoint_bdrv_all_find_vmstate_bs(int version, const char *vmstate_bs, bool has_devices,
                                                      const struct strList *devices, Error **errp);
int stillpoint_bdrv_save_vmstate(int version, BlockDriverState *bs, const uint8_t *buf, int64_t pos, int size);
int stillpoint_bdrv_load_vmstate(int version, BlockDriverState *bs, uint8_t *buf, int64_t pos, int size);
BlockDriverState *stillpoint_bdrv_snapshots(int version);
int stillpoint_bdrv_is_snapshot(int version, BlockDriverState *bs);
char *stillpoint_bdrv_snapshot_dump(int version, char *buf, int buf_size, const void *sn);
int stillpoint_load_tmp_argument(int version, BlockDriverState *bs, const char *argument, Error **errp);

/* Frees what bdrv_snapshot_list gave. It is C's free(), and so is glib's g_free(). */
void stillpoint_free(void *memory);

/* One node --------------------------------------------------------------------------------------------------------- */

/* 1, or 0: whether the node's format, or what it falls back to, makes snapshots. */
static inline int bdrv_can_snapshot(BlockDriverState *bs)
{
    return stillpoint_bdrv_can_snapshot(STILLPOINT_QEMU_VERSION, bs);
}

/* Makes a snapshot as sn_info says, durable on return, and writes its id there. */
static inline int bdrv_snapshot_create(BlockDriverState *bs, QEMUSnapshotInfo *sn_info)
{
    return stillpoint_bdrv_snapshot_create(STILLPOINT_QEMU_VERSION, bs, sn_info);
}

#if STILLPOINT_QEMU_VERSION >= 106
/* The first snapshot of that name, through 3.1 of that id or name; -ENOENT leaves sn_info as it was. */
static inline int bdrv_snapshot_find(BlockDriverState *bs, QEMUSnapshotInfo *sn_info, const char *name)
{
    return stillpoint_bdrv_snapshot_find(STILLPOINT_QEMU_VERSION, bs, sn_info, name);
}
#endif

#if STILLPOINT_QEMU_VERSION >= 107
/* The first snapshot with what is not NULL of id and name. False without an Error object: there is none. */
static inline bool bdrv_snapshot_find_by_id_and_name(BlockDriverState *bs, const char *id, const char *name,
                                                     QEMUSnapshotInfo *sn_info, Error **errp)
{
    return stillpoint_bdrv_snapshot_find_by_id_and_name(STILLPOINT_QEMU_VERSION, bs, id, name, sn_info, errp);
}
#endif

/* Makes the disk and the active VM state those of a snapshot, taken for an id first and then for a name. */
#if STILLPOINT_QEMU_VERSION >= 211
static inline int bdrv_snapshot_goto(BlockDriverState *bs, const char *snapshot_id, Error **errp)
{
    return stillpoint_bdrv_snapshot_goto(STILLPOINT_QEMU_VERSION, bs, snapshot_id, errp);
}
#else
static inline int bdrv_snapshot_goto(BlockDriverState *bs, const char *snapshot_id)
{
    return stillpoint_bdrv_snapshot_goto(STILLPOINT_QEMU_VERSION, bs, snapshot_id, NULL);
}
#endif

/* Deletes the first snapshot with what is not NULL of id and name; through 1.6 of that id, or else name. */
#if STILLPOINT_QEMU_VERSION >= 107
static inline int bdrv_snapshot_delete(BlockDriverState *bs, const char *snapshot_id, const char *name, Error **errp)
{
    return stillpoint_bdrv_snapshot_delete(STILLPOINT_QEMU_VERSION, bs, snapshot_id, name, errp);
}
#else
static inline int bdrv_snapshot_delete(BlockDriverState *bs, const char *snapshot_id)
{
    return stillpoint_bdrv_snapshot_delete(STILLPOINT_QEMU_VERSION, bs, snapshot_id, NULL, NULL);
}
#endif

/* Deletes by id, or else by name. Through 2.4 only the Error object tells of a failure. */
#if STILLPOINT_QEMU_VERSION >= 205 && STILLPOINT_QEMU_VERSION < 400
static inline int bdrv_snapshot_delete_by_id_or_name(BlockDriverState *bs, const char *id_or_name, Error **errp)
{
    return stillpoint_bdrv_snapshot_delete_by_id_or_name(STILLPOINT_QEMU_VERSION, bs, id_or_name, errp);
}
#elif STILLPOINT_QEMU_VERSION >= 107 && STILLPOINT_QEMU_VERSION < 205
static inline void bdrv_snapshot_delete_by_id_or_name(BlockDriverState *bs, const char *id_or_name, Error **errp)
{
    (void)stillpoint_bdrv_snapshot_delete_by_id_or_name(STILLPOINT_QEMU_VERSION, bs, id_or_name, errp);
}
#endif

/*
 * All snapshots in the order of their making: returns their number, and in *psn_info an array that the caller frees with
 * free(), or NULL for none. A failure leaves *psn_info as it was.
 */
static inline int bdrv_snapshot_list(BlockDriverState *bs, QEMUSnapshotInfo **psn_info)
{
    return stillpoint_bdrv_snapshot_list(STILLPOINT_QEMU_VERSION, bs, psn_info);
}

/* From here on reads of the node, which must be read-only, are of a snapshot. */
#if STILLPOINT_QEMU_VERSION >= 200
static inline int bdrv_snapshot_load_tmp(BlockDriverState *bs, const char *snapshot_id, const char *name,
                                         Error **errp)
{
    return stillpoint_bdrv_snapshot_load_tmp(STILLPOINT_QEMU_VERSION, bs, snapshot_id, name, errp);
}

/* The same by id, or else by name. */
static inline int bdrv_snapshot_load_tmp_by_id_or_name(BlockDriverState *bs, const char *id_or_name, Error **errp)
{
    return stillpoint_bdrv_snapshot_load_tmp_by_id_or_name(STILLPOINT_QEMU_VERSION, bs, id_or_name, errp);
}
#else
static inline int bdrv_snapshot_load_tmp(BlockDriverState *bs, const char *snapshot_name)
{
    return stillpoint_bdrv_snapshot_load_tmp(STILLPOINT_QEMU_VERSION, bs, NULL, snapshot_name, NULL);
}
#endif

/* Active VM state, which create keeps as much of as sn_info says and goto brings back. size, or -errno. */
static inline int bdrv_save_vmstate(BlockDriverState *bs, const uint8_t *buf, int64_t pos, int size)
{
    return stillpoint_bdrv_save_vmstate(STILLPOINT_QEMU_VERSION, bs, buf, pos, size);
}

/* Reads it; what was never written is zeros. size, or -errno. */
static inline int bdrv_load_vmstate(BlockDriverState *bs, uint8_t *buf, int64_t pos, int size)
{
    return stillpoint_bdrv_load_vmstate(STILLPOINT_QEMU_VERSION, bs, buf, pos, size);
}

#if STILLPOINT_QEMU_VERSION < 106
/* The node that VM state goes to, or NULL. */
static inline BlockDriverState *bdrv_snapshots(void)
{
    return stillpoint_bdrv_snapshots(STILLPOINT_QEMU_VERSION);
}

/* 1, or 0: whether the node was opened with -snapshot. */
static inline int bdrv_is_snapshot(BlockDriverState *bs)
{
    return stillpoint_bdrv_is_snapshot(STILLPOINT_QEMU_VERSION, bs);
}

/* A line of a list, or its header for NULL, cut to the buffer. Returns buf, or NULL if there is no room for a NUL. */
static inline char *bdrv_snapshot_dump(char *buf, int buf_size, QEMUSnapshotInfo *sn)
{
    return stillpoint_bdrv_snapshot_dump(STILLPOINT_QEMU_VERSION, buf, buf_size, sn);
}
#endif

/* All nodes -------------------------------------------------------------------------------------------------------- */

/*
 * They stop at the first node that fails, and nodes that were done stay done: as in every release of QEMU. Through 5.2
 * *first_bad_bs is that node, and NULL on success; from 6.0 on the Error object names it.
 */
#if STILLPOINT_QEMU_VERSION >= 600
/* Whether every node that must be in a snapshot can be. */
static inline bool bdrv_all_can_snapshot(bool has_devices, strList *devices, Error **errp)
{
    return stillpoint_bdrv_all_can_snapshot(STILLPOINT_QEMU_VERSION, has_devices, devices, NULL, errp);
}

/* Deletes the snapshot of that name where there is one. */
static inline int bdrv_all_delete_snapshot(const char *name, bool has_devices, strList *devices, Error **errp)
{
    return stillpoint_bdrv_all_delete_snapshot(STILLPOINT_QEMU_VERSION, name, has_devices, devices, NULL, errp);
}

/* Goes to the snapshot of that name, or of that id, on every node. */
static inline int bdrv_all_goto_snapshot(const char *name, bool has_devices, strList *devices, Error **errp)
{
    return stillpoint_bdrv_all_goto_snapshot(STILLPOINT_QEMU_VERSION, name, has_devices, devices, NULL, errp);
}

/* 1 if every node has it, 0 if one lacks it, negative for an error. */
static inline int bdrv_all_has_snapshot(const char *name, bool has_devices, strList *devices, Error **errp)
{
    return stillpoint_bdrv_all_has_snapshot(STILLPOINT_QEMU_VERSION, name, has_devices, devices, errp);
}

/* Makes a snapshot of every node, on vm_state_bs with that much VM state. sn is changed from node to node. */
static inline int bdrv_all_create_snapshot(QEMUSnapshotInfo *sn, BlockDriverState *vm_state_bs,
                                           uint64_t vm_state_size, bool has_devices, strList *devices, Error **errp)
{
    return stillpoint_bdrv_all_create_snapshot(STILLPOINT_QEMU_VERSION, sn, vm_state_bs, vm_state_size, has_devices,
                                               devices, NULL, errp);
}

/* The node that VM state goes to: that of the name, or for NULL the first that can have it. NULL if there is none. */
static inline BlockDriverState *bdrv_all_find_vmstate_bs(const char *vmstate_bs, bool has_devices, strList *devices,
                                                         Error **errp)
{
    return stillpoint_bdrv_all_find_vmstate_bs(STILLPOINT_QEMU_VERSION, vmstate_bs, has_devices, devices, errp);
}
#elif STILLPOINT_QEMU_VERSION >= 205
/* Whether every node that must be in a snapshot can be. */
static inline bool bdrv_all_can_snapshot(BlockDriverState **first_bad_bs)
{
    return stillpoint_bdrv_all_can_snapshot(STILLPOINT_QEMU_VERSION, false, NULL, first_bad_bs, NULL);
}

/* Deletes the snapshot of that name where there is one. */
static inline int bdrv_all_delete_snapshot(const char *name, BlockDriverState **first_bsd_bs, Error **err)
{
    return stillpoint_bdrv_all_delete_snapshot(STILLPOINT_QEMU_VERSION, name, false, NULL, first_bsd_bs, err);
}

/* Goes to the snapshot of that name, or of that id, on every node. */
#if STILLPOINT_QEMU_VERSION >= 211
static inline int bdrv_all_goto_snapshot(const char *name, BlockDriverState **first_bad_bs, Error **errp)
{
    return stillpoint_bdrv_all_goto_snapshot(STILLPOINT_QEMU_VERSION, name, false, NULL, first_bad_bs, errp);
}
#else
static inline int bdrv_all_goto_snapshot(const char *name, BlockDriverState **first_bsd_bs)
{
    return stillpoint_bdrv_all_goto_snapshot(STILLPOINT_QEMU_VERSION, name, false, NULL, first_bsd_bs, NULL);
}
#endif

/* 0 if every node has it, else -ENOENT. */
static inline int bdrv_all_find_snapshot(const char *name, BlockDriverState **first_bad_bs)
{
    return stillpoint_bdrv_all_find_snapshot(STILLPOINT_QEMU_VERSION, name, first_bad_bs);
}

/* Makes a snapshot of every node, on vm_state_bs with that much VM state. sn is changed from node to node. */
static inline int bdrv_all_create_snapshot(QEMUSnapshotInfo *sn, BlockDriverState *vm_state_bs,
                                           uint64_t vm_state_size, BlockDriverState **first_bad_bs)
{
    return stillpoint_bdrv_all_create_snapshot(STILLPOINT_QEMU_VERSION, sn, vm_state_bs, vm_state_size, false, NULL,
                                               first_bad_bs, NULL);
}

/* The first node that VM state can go to, or NULL. */
static inline BlockDriverState *bdrv_all_find_vmstate_bs(void)
{
    return stillpoint_bdrv_all_find_vmstate_bs(STILLPOINT_QEMU_VERSION, NULL, false, NULL, NULL);
}
#endif

#if STILLPOINT_QEMU_VERSION >= 200
/* What qemu-nbd -l ARGUMENT does: load_tmp by options (snapshot.id=3,snapshot.name=a), or by id, or else by name. */
static inline int stillpoint_snapshot_load_tmp(BlockDriverState *bs, const char *argument, Error **errp)
{
    return stillpoint_load_tmp_argument(STILLPOINT_QEMU_VERSION, bs, argument, errp);
}
#endif

#ifdef __cplusplus
}
#endif

#endif
