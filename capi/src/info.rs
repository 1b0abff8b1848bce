//! `QEMUSnapshotInfo` in memory, in the three forms that it had.

use crate::boundary::Outcome;
use crate::text::null;
use std::ffi::c_void;
use std::mem;
use stillpoint_api::compat::eras::CallerId;
use stillpoint_api::compat::{Flags, ICOUNT_NONE, IdStr, NameStr, QemuSnapshotInfo};

/// In 1.0: 32 bits of VM state.
#[repr(C)]
pub struct Info1_0 {
    id_str: [u8; 128],
    name: [u8; 256],
    vm_state_size: u32,
    date_sec: u32,
    date_nsec: u32,
    vm_clock_nsec: u64,
}

/// From 1.1 through 5.1.
#[repr(C)]
pub struct Info1_1 {
    id_str: [u8; 128],
    name: [u8; 256],
    vm_state_size: u64,
    date_sec: u32,
    date_nsec: u32,
    vm_clock_nsec: u64,
}

/// From 5.2 on: with an instruction count.
#[repr(C)]
pub struct Info5_2 {
    older: Info1_1,
    icount: u64,
}

/// Bytes of the release's form.
pub fn bytes(flags: &Flags) -> usize {
    if flags.icount {
        mem::size_of::<Info5_2>()
    } else if flags.vm_state_size_wide {
        mem::size_of::<Info1_1>()
    } else {
        mem::size_of::<Info1_0>()
    }
}

/// What a caller asks of create. An id that the release does not look at need not be initialised, and is not read.
///
/// # Safety
/// NULL, or a `QEMUSnapshotInfo` of the release.
pub unsafe fn read(flags: &Flags, at: *const c_void) -> Outcome<QemuSnapshotInfo> {
    if at.is_null() {
        return Err(null("sn_info"));
    }
    if !flags.vm_state_size_wide {
        // SAFETY: it is a struct of that release, which has this form.
        let from = unsafe { &*at.cast::<Info1_0>() };
        return Ok(QemuSnapshotInfo {
            id_str: IdStr::new(&from.id_str),
            name: NameStr::new(&from.name),
            vm_state_size: u64::from(from.vm_state_size),
            date_sec: from.date_sec,
            date_nsec: from.date_nsec,
            vm_clock_nsec: from.vm_clock_nsec,
            icount: ICOUNT_NONE,
        });
    }
    let icount = if flags.icount {
        // SAFETY: it is a struct of a release from 5.2 on, which has this form.
        unsafe { &*at.cast::<Info5_2>() }.icount
    } else {
        ICOUNT_NONE
    };
    // SAFETY: a struct of this form is also what the later one begins with.
    let from = unsafe { &*at.cast::<Info1_1>() };
    let id_str = match flags.caller_id {
        CallerId::Used(_) => IdStr::new(&from.id_str),
        CallerId::Overwritten => IdStr::default(),
    };
    Ok(QemuSnapshotInfo {
        id_str,
        name: NameStr::new(&from.name),
        vm_state_size: from.vm_state_size,
        date_sec: from.date_sec,
        date_nsec: from.date_nsec,
        vm_clock_nsec: from.vm_clock_nsec,
        icount,
    })
}

/// Fills in a snapshot that was found or listed.
///
/// # Safety
/// `at` can hold a `QEMUSnapshotInfo` of the release.
pub unsafe fn write(flags: &Flags, at: *mut c_void, sn: &QemuSnapshotInfo) {
    if !flags.vm_state_size_wide {
        let old = Info1_0 {
            id_str: *sn.id_str.as_array(),
            name: *sn.name.as_array(),
            vm_state_size: sn.vm_state_size as u32,
            date_sec: sn.date_sec,
            date_nsec: sn.date_nsec,
            vm_clock_nsec: sn.vm_clock_nsec,
        };
        // SAFETY: there is room for the release's struct, which has this form.
        return unsafe { at.cast::<Info1_0>().write(old) };
    }
    let older = Info1_1 {
        id_str: *sn.id_str.as_array(),
        name: *sn.name.as_array(),
        vm_state_size: sn.vm_state_size,
        date_sec: sn.date_sec,
        date_nsec: sn.date_nsec,
        vm_clock_nsec: sn.vm_clock_nsec,
    };
    let icount = sn.icount;
    if flags.icount {
        // SAFETY: there is room for the release's struct, which has this form.
        unsafe { at.cast::<Info5_2>().write(Info5_2 { older, icount }) };
    } else {
        // SAFETY: there is room for the release's struct, which has this form.
        unsafe { at.cast::<Info1_1>().write(older) };
    }
}

/// Writes what create changes: the id, and in a group the bytes of VM state.
///
/// # Safety
/// `at` is a `QEMUSnapshotInfo` of the release.
pub unsafe fn write_created(flags: &Flags, at: *mut c_void, sn: &QemuSnapshotInfo) {
    if flags.vm_state_size_wide {
        let at = at.cast::<Info1_1>();
        // SAFETY: a struct of this form is also what the later one begins with.
        let to = unsafe { &mut *at };
        to.id_str = *sn.id_str.as_array();
        to.vm_state_size = sn.vm_state_size;
    } else {
        // SAFETY: it is a struct of that release, which has this form.
        let to = unsafe { &mut *at.cast::<Info1_0>() };
        to.id_str = *sn.id_str.as_array();
        to.vm_state_size = sn.vm_state_size as u32;
    }
}
