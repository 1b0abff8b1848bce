//! Devices: attached under a name, removed again.

use crate::name::check_device_name;
use crate::select::device;
use crate::system::{System, absolute, check_unmarked};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use stillpoint_store::catalog::{Catalog, DeviceState};
use stillpoint_store::disk::{FileKind, OpenMode, Stamp};
use stillpoint_store::format::entry::{Attachment, Op, SessionKind};
use stillpoint_store::id::Uid;
use stillpoint_store::image::{Access, Image};
use stillpoint_store::object::Purse;
use stillpoint_store::{Error, ErrorKind, Result};

/// The one image format that is read without other programs.
const RAW: &str = "raw";

impl System {
    /// Attaches an image file or a block device under a name. The image is opened once to see that it can be.
    pub fn device_add(
        &self,
        name: &str,
        image: &Path,
        format: &str,
        read_only: bool,
    ) -> Result<()> {
        check_device_name(name)?;
        let attachment = self.attachment(image, format, read_only)?;
        let uid = self.store.new_uid();
        self.store
            .commit(SessionKind::Writer, Purse::Free, &mut |catalog| {
                if catalog.device_named(name).is_some() {
                    return Err(Error::new(
                        ErrorKind::AlreadyExists,
                        format!("adding device {name:?}"),
                    )
                    .detail("there is one of that name already")
                    .hint("`still device list` shows all"));
                }
                self.check_not_attached(
                    catalog,
                    None,
                    &attachment,
                    format!("adding device {name:?}"),
                )?;
                let attachment = Some(attachment.clone());
                Ok(vec![Op::PutDevice {
                    uid,
                    name: name.into(),
                    attachment,
                }])
            })
    }

    /// Gives a device another image, or one to a device without. Its snapshots stay; what the new image holds is
    /// unknown to the store until the next create or goto, so base and head go. Durable when this returns.
    pub fn device_attach(
        &self,
        name: &str,
        image: &Path,
        format: &str,
        read_only: bool,
    ) -> Result<()> {
        let attachment = self.attachment(image, format, read_only)?;
        self.store
            .commit(SessionKind::Writer, Purse::Free, &mut |catalog| {
                let d = device(catalog, name)?;
                check_unmarked(&[d])?;
                check_no_volume(d)?;
                self.check_not_attached(
                    catalog,
                    Some(d.uid),
                    &attachment,
                    format!("attaching an image to device {name:?}"),
                )?;
                Ok(reattached(d, Some(attachment.clone())))
            })
    }

    /// Takes the image from a device, which keeps its snapshots: `create` leaves it out from now on. The image need not
    /// be there any more. Durable when this returns.
    pub fn device_detach(&self, name: &str) -> Result<()> {
        self.store
            .commit(SessionKind::Writer, Purse::Reserve, &mut |catalog| {
                let d = device(catalog, name)?;
                check_unmarked(&[d])?;
                if d.attachment.is_none() {
                    let why = "it has no image";
                    return Err(Error::invalid(format!("detaching device {name:?}"), why));
                }
                Ok(reattached(d, None))
            })
    }

    /// Opens the image once to see that it can be.
    fn attachment(&self, image: &Path, format: &str, read_only: bool) -> Result<Attachment> {
        if format != RAW {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("attaching {}", image.display()),
            )
            .detail(format!(
                "image format {format:?} is not supported; {RAW:?} is"
            )));
        }
        drop(Image::open(&*self.disk, image, Access::Read)?);
        let path = absolute(&*self.disk, image)?;
        Ok(Attachment {
            path: path.as_os_str().as_bytes().to_vec(),
            format: format.into(),
            read_only,
        })
    }

    /// Two devices of one image would lock each other out, and a goto of one change the other. A hard link is the same
    /// image; one that is gone by now is compared by its path.
    fn check_not_attached(
        &self,
        catalog: &Catalog,
        own: Option<Uid>,
        new: &Attachment,
        doing: String,
    ) -> Result<()> {
        let inode = self.inode(new);
        let same =
            |a: &Attachment| a.path == new.path || (inode.is_some() && self.inode(a) == inode);
        let mut others = catalog.devices().filter(|d| Some(d.uid) != own);
        match others.find(|d| d.attachment.as_ref().is_some_and(same)) {
            None => Ok(()),
            Some(other) => Err(Error::new(ErrorKind::AlreadyExists, doing)
                .detail(format!("its image is that of device {:?}", other.name))),
        }
    }

    fn inode(&self, attachment: &Attachment) -> Option<(u64, u64)> {
        self.stamp(attachment).map(|stamp| stamp.inode)
    }

    /// Bytes of the image now, without a lock; `None` where it cannot be asked.
    pub(crate) fn image_size(&self, attachment: &Attachment) -> Option<u64> {
        self.stamp(attachment).map(|stamp| stamp.len)
    }

    fn stamp(&self, attachment: &Attachment) -> Option<Stamp> {
        let path = image_path(attachment);
        let kind = self.disk.kind(path).ok()?;
        // Anything else may make whoever opens it wait.
        if !matches!(kind, FileKind::File | FileKind::BlockDevice) {
            return None;
        }
        self.disk.open(path, OpenMode::Read).ok()?.stamp().ok()
    }

    /// Opens and locks the image that a device stands for; an error names the device and the way out.
    pub(crate) fn open_image(
        &self,
        name: &str,
        attachment: &Attachment,
        access: Access,
    ) -> Result<Image> {
        let path = image_path(attachment);
        Image::open(&*self.disk, path, access).map_err(|e| {
            let gone = self.disk.kind(path).is_err() || e.kind() == ErrorKind::InvalidInput;
            let e = e.of(format!("device {name:?}"));
            if !gone {
                return e;
            }
            e.hint(format!(
                "`still device attach {name} IMAGE` gives the device another image, \
                 `still device detach {name}` none"
            ))
        })
    }

    /// Removes a device that has no snapshots. Its image is not touched.
    pub fn device_remove(&self, name: &str) -> Result<()> {
        self.store
            .commit(SessionKind::Writer, Purse::Reserve, &mut |catalog| {
                let d = device(catalog, name)?;
                check_unmarked(&[d])?;
                check_no_volume(d)?;
                let n = catalog.snapshots_of(&d.uid).len();
                if n > 0 {
                    return Err(Error::new(
                        ErrorKind::Refused,
                        format!("removing device {name:?}"),
                    )
                    .detail(format!(
                        "it has {n} snapshot{}",
                        if n == 1 { "" } else { "s" }
                    ))
                    .hint(
                        "delete them first with `still delete SNAP --device NAME`; \
                                 `still device detach NAME` lets go of the image alone",
                    ));
                }
                Ok(vec![Op::RemoveDevice { uid: d.uid }])
            })
    }
}

/// What is done to a volume is done under its lock.
fn check_no_volume(d: &DeviceState) -> Result<()> {
    if d.volume.is_none() {
        return Ok(());
    }
    Err(
        Error::new(ErrorKind::Refused, format!("changing device {:?}", d.name))
            .detail("it is a volume")
            .hint("`still volume remove` removes a volume"),
    )
}

fn image_path(attachment: &Attachment) -> &Path {
    Path::new(OsStr::from_bytes(&attachment.path))
}

/// What was known of the old image says nothing of the new one.
fn reattached(d: &DeviceState, attachment: Option<Attachment>) -> Vec<Op> {
    vec![
        Op::PutDevice {
            uid: d.uid,
            name: d.name.clone(),
            attachment,
        },
        Op::PutHead {
            uid: d.uid,
            head: None,
            base: None,
        },
    ]
}
