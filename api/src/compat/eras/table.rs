//! The table. To teach the code a release, add steps here; everything else asks the flags.

use super::{
    Axis, ByIdOrName, CallerId, DeviceFilter, Era, Flags, GroupDeleteKey, GroupDeleteRet,
    GroupResult, IdParse, ImgDeleteKey, ImgText, ImgUsage, Layout, SavevmOrder, Step,
};
use crate::compat::errno;
use crate::compat::release::Release;

/// The eras, oldest first.
#[rustfmt::skip] // A table is read line by line.
pub const ERAS: &[Era] = &[
    era("Q1_0", 1, 0, "functions in block.h; find is private to savevm"),
    era("Q1_6", 1, 6, "own header and source file; find is public"),
    era("Q1_7", 1, 7, "delete by id and name; find_by_id_and_name; delete_by_id_or_name"),
    era("Q2_0", 2, 0, "load_tmp by id and name; snapshot.id and snapshot.name; table limits"),
    era("Q2_5", 2, 5, "the group functions bdrv_all_*"),
    era("Q2_11", 2, 11, "goto with errp; dirty bitmaps block goto"),
    era("Q4_0", 4, 0, "find is by name only; delete_by_id_or_name is gone; data files refused"),
    era("Q4_2", 4, 2, "devices chosen by filter F (the default era)"),
    era("Q5_1", 5, 1, "goto may resize the image"),
    era("Q5_2", 5, 2, "icount; stricter rule for the fallback child"),
    era("Q6_0", 6, 0, "device lists and errp in the group; has in place of find; QMP jobs"),
    era("Q10_1", 10, 1, "delete wants a drained node; group delete returns an errno; qemu-img lists by default"),
];

const fn era(key: &'static str, major: u8, minor: u8, starts: &'static str) -> Era {
    Era {
        key,
        first: Release::at(major, minor),
        starts,
    }
}

const fn step(major: u8, minor: u8, text: &'static str, set: fn(&mut Flags)) -> Step {
    Step {
        from: Release::at(major, minor),
        text,
        set: Some(set),
    }
}

/// A step of an axis that is not imitated.
const fn fact(major: u8, minor: u8, text: &'static str) -> Step {
    Step {
        from: Release::at(major, minor),
        text,
        set: None,
    }
}

const fn axis(name: &'static str, about: &'static str, steps: &'static [Step]) -> Axis {
    Axis {
        name,
        about,
        steps,
        not_imitated: None,
    }
}

const fn told(
    name: &'static str,
    about: &'static str,
    not_imitated: &'static str,
    steps: &'static [Step],
) -> Axis {
    Axis {
        name,
        about,
        steps,
        not_imitated: Some(not_imitated),
    }
}

/// Every way in which releases differ that a caller of this layer can see, or that an importer or exporter must know.
#[rustfmt::skip] // A table is read line by line.
pub const AXES: &[Axis] = &[
    axis("block_h", "whether the header has bdrv_snapshots, bdrv_is_snapshot and bdrv_snapshot_dump", &[
        step(1, 0, "yes", |f| f.block_h = true),
        step(1, 6, "no", |f| f.block_h = false),
    ]),
    axis("group_api", "whether bdrv_all_* exist", &[
        step(1, 0, "absent", |f| f.group_api = false),
        step(2, 5, "present", |f| f.group_api = true),
    ]),
    axis("group_result", "how a group function names the node that failed", &[
        step(1, 0, "*first_bad_bs, NULL on success", |f| f.group_result = GroupResult::FirstBad),
        step(6, 0, "errp, and 0 or -1", |f| f.group_result = GroupResult::Errp),
    ]),
    axis("group_devices_param", "whether group functions take a list of devices", &[
        step(1, 0, "no", |f| f.group_devices_param = false),
        step(6, 0, "has_devices, devices", |f| f.group_devices_param = true),
    ]),
    axis("group_delete_ret", "what a failing bdrv_all_delete_snapshot returns", &[
        step(1, 0, "the driver's -errno", |f| f.group_delete_ret = GroupDeleteRet::Driver),
        step(6, 0, "-1", |f| f.group_delete_ret = GroupDeleteRet::MinusOne),
        step(10, 1, "-errno", |f| f.group_delete_ret = GroupDeleteRet::Errno),
    ]),
    axis("group_delete_key", "what a group delete deletes by, where it found the name", &[
        step(1, 0, "the argument, as id then name", |f| f.group_delete_key = GroupDeleteKey::IdOrName),
        step(4, 0, "id and name of the entry found", |f| f.group_delete_key = GroupDeleteKey::Found),
    ]),
    axis("device_filter", "which nodes a group function without a list of devices covers", &[
        step(1, 0, "those that can snapshot", |f| f.device_filter = DeviceFilter::CanSnapshot),
        step(
            4,
            2,
            "F: inserted, not read-only, with a backend or without parents; no protocol node of -blockdev bars savevm",
            |f| f.device_filter = DeviceFilter::F,
        ),
    ]),
    axis("find_public", "whether bdrv_snapshot_find is public", &[
        step(1, 0, "no", |f| f.find_public = false),
        step(1, 6, "yes", |f| f.find_public = true),
    ]),
    axis("find_by_id", "what bdrv_snapshot_find, and so loadvm, compares its argument with", &[
        step(1, 0, "id or name, entry by entry", |f| f.find_by_id = true),
        step(4, 0, "name", |f| f.find_by_id = false),
    ]),
    axis("find_id_name", "whether bdrv_snapshot_find_by_id_and_name exists", &[
        step(1, 0, "absent", |f| f.find_id_name = false),
        step(1, 7, "present", |f| f.find_id_name = true),
    ]),
    axis("delete_takes_name", "the arguments of bdrv_snapshot_delete", &[
        step(1, 0, "bs, id", |f| f.delete_takes_name = false),
        step(1, 7, "bs, id, name, errp", |f| f.delete_takes_name = true),
    ]),
    axis("delete_by_id_or_name", "bdrv_snapshot_delete_by_id_or_name", &[
        step(1, 0, "absent", |f| f.delete_by_id_or_name = ByIdOrName::Absent),
        step(1, 7, "returns nothing", |f| f.delete_by_id_or_name = ByIdOrName::Void),
        step(2, 5, "returns int", |f| f.delete_by_id_or_name = ByIdOrName::Int),
        step(4, 0, "absent", |f| f.delete_by_id_or_name = ByIdOrName::Absent),
    ]),
    axis("load_tmp_full", "the arguments of bdrv_snapshot_load_tmp", &[
        step(1, 0, "bs, name", |f| f.load_tmp_full = false),
        step(2, 0, "bs, id, name, errp; and load_tmp_by_id_or_name", |f| f.load_tmp_full = true),
    ]),
    axis("unsupported_feature", "how delete and load_tmp refuse a format without snapshots", &[
        step(1, 0, "does not support feature 'internal snapshot deletion'", |f| f.unsupported_feature = true),
        step(2, 4, "does not support internal snapshot deletion", |f| f.unsupported_feature = false),
    ]),
    axis("goto_errp", "whether goto sets an Error object", &[
        step(1, 0, "no", |f| f.goto_errp = false),
        step(2, 11, "yes", |f| f.goto_errp = true),
    ]),
    axis("goto_error_wins", "which error a goto through the fallback child returns when the reopen fails too", &[
        step(1, 0, "the reopen's", |f| f.goto_error_wins = false),
        step(2, 11, "the goto's", |f| f.goto_error_wins = true),
    ]),
    axis("goto_bitmap_refusal", "goto on a node with a dirty bitmap", &[
        step(1, 0, "allowed", |f| f.goto_bitmap_refusal = false),
        step(2, 11, "-EBUSY", |f| f.goto_bitmap_refusal = true),
    ]),
    axis("goto_resize", "goto to a snapshot of another disk size", &[
        step(1, 0, "-ENOTSUP", |f| f.goto_resize = false),
        step(5, 1, "the image gets that size first", |f| f.goto_resize = true),
    ]),
    told("l1_sanity", "whether goto and delete check a qcow2 L1 table first",
        "a store has no L1 tables: what it gives out is checked by its hashes, in every release", &[
        fact(1, 0, "no"),
        fact(2, 12, "yes"),
    ]),
    axis("data_file_refusal", "create, goto, delete and list on an image with an external data file", &[
        step(1, 0, "there are no such images", |f| f.data_file_refusal = false),
        step(4, 0, "-ENOTSUP", |f| f.data_file_refusal = true),
    ]),
    axis("fallback_primary", "the child that an operation falls back to", &[
        step(1, 0, "bs->file", |f| f.fallback_primary = false),
        step(5, 2, "the primary child, if no other child holds data, metadata or is filtered", |f| f.fallback_primary = true),
    ]),
    axis("can_needs_writable", "which nodes bdrv_can_snapshot says 0 for at once", &[
        step(1, 0, "read-only ones", |f| f.can_needs_writable = false),
        step(9, 0, "ones that are not writable, inactive ones too", |f| f.can_needs_writable = true),
    ]),
    axis("caller_id", "an id_str that the caller of create filled in", &[
        step(1, 0, "used; -ENOENT if taken", |f| f.caller_id = CallerId::Used(errno::ENOENT)),
        step(1, 1, "used; -EEXIST if taken", |f| f.caller_id = CallerId::Used(errno::EEXIST)),
        step(2, 4, "overwritten", |f| f.caller_id = CallerId::Overwritten),
    ]),
    axis("id_parse", "what ids are parsed into where the highest is looked for", &[
        step(1, 0, "int", |f| f.id_parse = IdParse::Int),
        step(1, 7, "unsigned long", |f| f.id_parse = IdParse::UnsignedLong),
    ]),
    axis("create_discards_vmstate", "the active VM state after a create", &[
        step(1, 0, "stays", |f| f.create_discards_vmstate = false),
        step(1, 7, "is discarded", |f| f.create_discards_vmstate = true),
    ]),
    axis("table_limits", "limits of the snapshot table", &[
        step(1, 0, "none", |f| f.table_limits = false),
        step(2, 0, "65536 entries, 64 MiB", |f| f.table_limits = true),
    ]),
    told("extra_limit", "extra data of a table entry at most",
        "a store takes 1024 bytes at most, in every release", &[
        fact(1, 0, "no limit"),
        fact(4, 2, "1024 bytes"),
    ]),
    axis("extra_written", "bytes of extra data written for an entry", &[
        step(1, 0, "0", |f| f.extra_written = 0),
        step(1, 1, "16", |f| f.extra_written = 16),
        step(5, 2, "24", |f| f.extra_written = 24),
    ]),
    told("extra_unknown_kept", "unknown extra data when the table is rewritten",
        "a store keeps it, in every release", &[
        fact(1, 0, "dropped"),
        fact(4, 2, "kept"),
    ]),
    axis("icount", "whether a snapshot has an instruction count", &[
        step(1, 0, "no", |f| f.icount = false),
        step(5, 2, "yes", |f| f.icount = true),
    ]),
    axis("vm_state_size_wide", "the VM state's size in QEMUSnapshotInfo", &[
        step(1, 0, "32 bits", |f| f.vm_state_size_wide = false),
        step(1, 1, "64 bits", |f| f.vm_state_size_wide = true),
    ]),
    told("delete_drain", "who waits for requests in flight before a delete",
        "nothing is in flight: an image is locked while it is read or written, and a delete does neither", &[
        fact(1, 0, "nobody"),
        fact(2, 2, "delete, on all nodes"),
        fact(2, 4, "delete, on this node"),
        fact(2, 6, "delete, in a drained section"),
        fact(10, 1, "the caller"),
    ]),
    axis("savevm_order", "what savevm NAME does with snapshots of that name", &[
        step(1, 0, "takes over name and id, deletes it, saves", |f| f.savevm_order = SavevmOrder::Reuse),
        step(2, 5, "deletes them first, then saves", |f| f.savevm_order = SavevmOrder::DeleteFirst),
        step(6, 0, "HMP deletes them first, QMP refuses", |f| f.savevm_order = SavevmOrder::DeleteOrRefuse),
    ]),
    axis("savevm_cleanup", "the snapshots of a savevm that failed part way", &[
        step(1, 0, "stay", |f| f.savevm_cleanup = false),
        step(6, 0, "are deleted by name, as far as that goes", |f| f.savevm_cleanup = true),
    ]),
    axis("monitor_full_stop", "how the monitor refuses a disk that bars snapshots, and one without VM state", &[
        step(1, 0, "with a full stop", |f| f.monitor_full_stop = true),
        step(2, 10, "without; in the second, two spaces before \"offline\"", |f| f.monitor_full_stop = false),
    ]),
    axis("list_layout", "the columns of a snapshot list", &[
        step(1, 0, "10 20 7 20 15, sizes as 41M", |f| f.list_layout = Layout::L1_0),
        step(4, 1, "10 20 7 20 15, sizes as 41 MiB", |f| f.list_layout = Layout::L4_1),
        step(5, 0, "10 20 11 20 15", |f| f.list_layout = Layout::L5_0),
        step(5, 2, "10 18 7 20 13 11, with ICOUNT", |f| f.list_layout = Layout::L5_2),
        step(6, 0, "10 17 8 20 13 11", |f| f.list_layout = Layout::L6_0),
        step(9, 0, "7 16 8 19 15 10, VM_SIZE and VM_CLOCK, -- for no icount", |f| f.list_layout = Layout::L9_0),
    ]),
    axis("img_delete_key", "what qemu-img snapshot -d takes its argument for", &[
        step(1, 0, "id or name", |f| f.img_delete_key = ImgDeleteKey::IdOrName),
        step(1, 7, "id, then name", |f| f.img_delete_key = ImgDeleteKey::IdThenName),
        step(4, 0, "name", |f| f.img_delete_key = ImgDeleteKey::Name),
    ]),
    axis("img_lists_by_default", "qemu-img snapshot without an action", &[
        step(1, 0, "opens the image and prints nothing", |f| f.img_lists_by_default = false),
        step(10, 1, "lists", |f| f.img_lists_by_default = true),
    ]),
    axis("img_mix_message", "qemu-img snapshot with two actions, or not with one file", &[
        step(1, 0, "prints its help", |f| f.img_mix_message = false),
        step(2, 1, "Cannot mix '-l', '-a', '-c', '-d'; Expecting one image file name", |f| f.img_mix_message = true),
    ]),
    axis("img_usage", "qemu-img snapshot with an option that there is not, or without its argument", &[
        step(1, 0, "getopt's line and its help, exit code 1", |f| f.img_usage = ImgUsage::HelpFails),
        step(2, 1, "getopt's line and its help, exit code 0", |f| f.img_usage = ImgUsage::HelpSucceeds),
        step(2, 9, "unrecognized option '-z'; missing argument for option '-c'", |f| f.img_usage = ImgUsage::Own),
        step(10, 1, "getopt's line; Try 'qemu-img snapshot --help'", |f| f.img_usage = ImgUsage::Getopt),
    ]),
    axis("img_long_actions", "-f and the long --list, --apply, --create, --delete of qemu-img snapshot", &[
        step(1, 0, "absent", |f| f.img_long_actions = false),
        step(10, 1, "present", |f| f.img_long_actions = true),
    ]),
    axis("img_open_twice", "how qemu-img words that an image cannot be opened", &[
        step(1, 0, "Could not open 'FILE': why", |f| f.img_open_twice = false),
        step(1, 7, "Could not open 'FILE': Could not open 'FILE': why", |f| f.img_open_twice = true),
    ]),
    axis("img_create_text", "how qemu-img snapshot -c words a failure", &[
        step(1, 0, "-95 (Operation not supported)", |f| f.img_create_text = ImgText::Number),
        step(8, 2, "Operation not supported", |f| f.img_create_text = ImgText::Strerror),
    ]),
    axis("img_apply_text", "how qemu-img snapshot -a words a failure", &[
        step(1, 0, "-95 (Operation not supported)", |f| f.img_apply_text = ImgText::Number),
        step(2, 11, "the Error object's text", |f| f.img_apply_text = ImgText::Errp),
    ]),
    axis("img_delete_text", "how qemu-img snapshot -d words a failure", &[
        step(1, 0, "-95 (Operation not supported)", |f| f.img_delete_text = ImgText::Number),
        step(1, 7, "the Error object's text in parentheses", |f| f.img_delete_text = ImgText::ErrpInParentheses),
        step(2, 6, "the Error object's text", |f| f.img_delete_text = ImgText::Errp),
    ]),
    axis("hmp_partial_lists", "what info snapshots shows", &[
        step(1, 0, "one table of what all devices have", |f| f.hmp_partial_lists = false),
        step(2, 7, "that, and a list per device of what only some have", |f| f.hmp_partial_lists = true),
    ]),
    axis("options", "the options snapshot.id and snapshot.name", &[
        step(1, 0, "absent", |f| f.options = false),
        step(2, 0, "present", |f| f.options = true),
    ]),
    told("qmp_internal_sync", "blockdev-snapshot-internal-sync and its delete",
        "no function here is a QMP command; what speaks QMP knows since when each of its commands is there", &[
        fact(1, 0, "absent"),
        fact(1, 7, "present"),
    ]),
    axis("qmp_jobs", "the jobs snapshot-save, snapshot-load, snapshot-delete", &[
        step(1, 0, "absent", |f| f.qmp_jobs = false),
        step(6, 0, "present", |f| f.qmp_jobs = true),
    ]),
];
