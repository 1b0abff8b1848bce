//! How QEMU releases differ: one table from ranges of releases to flags. Code asks the flags, never the version.

mod table;
mod text;

pub use table::{AXES, ERAS};
pub use text::{between, markdown, of_release, overview};

use crate::compat::errno;
use crate::compat::release::Release;

/// A range of releases under one name: what most people mean by "the version". Many axes move on other releases.
#[derive(Debug, Clone, Copy)]
pub struct Era {
    /// Its name, `Q4_2`.
    pub key: &'static str,
    /// Its first release.
    pub first: Release,
    /// What starts with it.
    pub starts: &'static str,
}

impl Era {
    /// The era of a release.
    pub fn of(release: Release) -> Self {
        let begun = ERAS.iter().rev().find(|e| e.first <= release);
        *begun.unwrap_or(&ERAS[0])
    }

    /// Its last release.
    pub fn last(&self) -> Release {
        let next = ERAS.iter().find(|e| e.first > self.first);
        next.and_then(|e| e.first.previous())
            .unwrap_or(Release::LAST)
    }

    /// `2.5-2.10`, or the one release that it is.
    pub fn range(&self) -> String {
        range(self.first, self.last())
    }
}

fn range(first: Release, last: Release) -> String {
    if first == last {
        first.to_string()
    } else {
        format!("{first}-{last}")
    }
}

/// One way in which releases differ.
#[derive(Debug)]
pub struct Axis {
    /// The flag's name, as in [`Flags`], unless it is not imitated.
    pub name: &'static str,
    /// What it decides.
    pub about: &'static str,
    /// Its values, oldest first; the first is that of 1.0.
    pub steps: &'static [Step],
    /// Why nothing here behaves by it: then it has no flag and is told of only.
    pub not_imitated: Option<&'static str>,
}

/// From a release on, a flag has this value.
#[derive(Debug)]
pub struct Step {
    /// The release.
    pub from: Release,
    /// The value in words.
    pub text: &'static str,
    set: Option<fn(&mut Flags)>,
}

impl Axis {
    /// The step that a release is on.
    pub fn step(&self, release: Release) -> &'static Step {
        let begun = self.steps.iter().rev().find(|s| s.from <= release);
        begun.unwrap_or(&self.steps[0])
    }

    /// Its value in words at a release.
    pub fn value(&self, release: Release) -> &'static str {
        self.step(release).text
    }

    /// Its values with the releases that have them: (`5.1-11.1`, text).
    pub fn ranges(&self) -> Vec<(String, &'static str)> {
        let ends = self.steps[1..].iter().map(|s| s.from.previous());
        let ends = ends.chain([Some(Release::LAST)]);
        let pairs = self.steps.iter().zip(ends);
        pairs
            .map(|(s, end)| (range(s.from, end.unwrap_or(s.from)), s.text))
            .collect()
    }
}

/// The `BlockDriverState **` result of the group functions, or the Error object that took its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupResult {
    /// `*first_bad_bs`, written in every case.
    FirstBad,
    /// An Error object, and -1 for most failures.
    Errp,
}

/// What `bdrv_all_delete_snapshot` returns when it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupDeleteRet {
    /// The driver's errno.
    Driver,
    /// -1.
    MinusOne,
    /// An errno again.
    Errno,
}

/// What a group delete deletes by, on a node where the name was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupDeleteKey {
    /// The name it was given, as id and then as name.
    IdOrName,
    /// Id and name of the entry found.
    Found,
}

/// Which nodes take part in a group function without a device list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceFilter {
    /// Those that can snapshot.
    CanSnapshot,
    /// Inserted, not read-only, and attached to a backend or without parents.
    F,
}

/// `bdrv_snapshot_delete_by_id_or_name`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByIdOrName {
    /// Not there.
    Absent,
    /// Returns nothing; only the Error object tells.
    Void,
    /// Returns an errno.
    Int,
}

/// What becomes of an `id_str` that the caller of create fills in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallerId {
    /// Used; one that is taken gives this errno.
    Used(i32),
    /// Overwritten.
    Overwritten,
}

/// What ids are parsed into where the highest is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdParse {
    /// `int`: 32 bits, signed.
    Int,
    /// `unsigned long`: 64 bits.
    UnsignedLong,
}

/// What a savevm with a name does with snapshots of that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SavevmOrder {
    /// Takes over name and id of the old one, deletes it, then saves.
    Reuse,
    /// Deletes them before anything else is known.
    DeleteFirst,
    /// The monitor command deletes first, the QMP job refuses.
    DeleteOrRefuse,
}

/// The columns of a snapshot list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "named by the release that it came with")]
pub enum Layout {
    L1_0,
    L4_1,
    L5_0,
    L5_2,
    L6_0,
    L9_0,
}

/// What `qemu-img snapshot -d` takes its argument for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImgDeleteKey {
    /// `bdrv_snapshot_delete` with an id or a name.
    IdOrName,
    /// `bdrv_snapshot_delete_by_id_or_name`.
    IdThenName,
    /// A name.
    Name,
}

/// How `qemu-img snapshot` words an action that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImgText {
    /// `-95 (Operation not supported)`.
    Number,
    /// `Operation not supported`.
    Strerror,
    /// The Error object's text in parentheses.
    ErrpInParentheses,
    /// The Error object's text.
    Errp,
}

/// What `qemu-img snapshot` says to an option that it does not have or that lacks its argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImgUsage {
    /// getopt's line, then its help; exit code 1.
    HelpFails,
    /// getopt's line, then its help; exit code 0.
    HelpSucceeds,
    /// A line of its own.
    Own,
    /// getopt's line, and which subcommand's `--help` to try.
    Getopt,
}

/// The behaviour of one release. Each field is an axis of [`AXES`] that is imitated; there it says what it decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the table says it, in words and by release")]
#[expect(clippy::struct_excessive_bools, reason = "each is an axis of its own")]
pub struct Flags {
    pub block_h: bool,
    pub group_api: bool,
    pub group_result: GroupResult,
    pub group_devices_param: bool,
    pub group_delete_ret: GroupDeleteRet,
    pub group_delete_key: GroupDeleteKey,
    pub device_filter: DeviceFilter,
    pub find_public: bool,
    pub find_by_id: bool,
    pub find_id_name: bool,
    pub delete_takes_name: bool,
    pub delete_by_id_or_name: ByIdOrName,
    pub load_tmp_full: bool,
    pub unsupported_feature: bool,
    pub goto_errp: bool,
    pub goto_error_wins: bool,
    pub goto_bitmap_refusal: bool,
    pub goto_resize: bool,
    pub data_file_refusal: bool,
    pub fallback_primary: bool,
    pub can_needs_writable: bool,
    pub caller_id: CallerId,
    pub id_parse: IdParse,
    pub create_discards_vmstate: bool,
    pub table_limits: bool,
    pub extra_written: u8,
    pub icount: bool,
    pub vm_state_size_wide: bool,
    pub savevm_order: SavevmOrder,
    pub savevm_cleanup: bool,
    pub monitor_full_stop: bool,
    pub list_layout: Layout,
    pub img_delete_key: ImgDeleteKey,
    pub img_lists_by_default: bool,
    pub img_mix_message: bool,
    pub img_usage: ImgUsage,
    pub img_long_actions: bool,
    pub img_open_twice: bool,
    pub img_create_text: ImgText,
    pub img_apply_text: ImgText,
    pub img_delete_text: ImgText,
    pub hmp_partial_lists: bool,
    pub options: bool,
    pub qmp_jobs: bool,
}

impl Flags {
    /// How a release behaved.
    pub(super) fn of(release: Release) -> Self {
        let mut flags = BLANK;
        let setters = AXES.iter().filter_map(|axis| axis.step(release).set);
        setters.for_each(|set| set(&mut flags));
        flags
    }
}

/// Overwritten field by field from the table; a test sees that no axis leaves 1.0 out.
const BLANK: Flags = Flags {
    block_h: false,
    group_api: false,
    group_result: GroupResult::FirstBad,
    group_devices_param: false,
    group_delete_ret: GroupDeleteRet::Driver,
    group_delete_key: GroupDeleteKey::IdOrName,
    device_filter: DeviceFilter::CanSnapshot,
    find_public: false,
    find_by_id: false,
    find_id_name: false,
    delete_takes_name: false,
    delete_by_id_or_name: ByIdOrName::Absent,
    load_tmp_full: false,
    unsupported_feature: false,
    goto_errp: false,
    goto_error_wins: false,
    goto_bitmap_refusal: false,
    goto_resize: false,
    data_file_refusal: false,
    fallback_primary: false,
    can_needs_writable: false,
    caller_id: CallerId::Used(errno::ENOENT),
    id_parse: IdParse::Int,
    create_discards_vmstate: false,
    table_limits: false,
    extra_written: 0,
    icount: false,
    vm_state_size_wide: false,
    savevm_order: SavevmOrder::Reuse,
    savevm_cleanup: false,
    monitor_full_stop: false,
    list_layout: Layout::L1_0,
    img_delete_key: ImgDeleteKey::IdOrName,
    img_lists_by_default: false,
    img_mix_message: false,
    img_usage: ImgUsage::HelpFails,
    img_long_actions: false,
    img_open_twice: false,
    img_create_text: ImgText::Number,
    img_apply_text: ImgText::Number,
    img_delete_text: ImgText::Number,
    hmp_partial_lists: false,
    options: false,
    qmp_jobs: false,
};
