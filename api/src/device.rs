//! Devices: attached under a name, removed again.

use crate::name::check_device_name;
use crate::select::device;
use crate::system::{System, absolute, check_unmarked};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use stillpoint_store::format::entry::{Attachment, Op, SessionKind};
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
        let attachment = Attachment {
            path: path.as_os_str().as_bytes().to_vec(),
            format: format.into(),
            read_only,
        };
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
                let same = |a: &Attachment| a.path == attachment.path;
                if let Some(other) = catalog
                    .devices()
                    .find(|d| d.attachment.as_ref().is_some_and(same))
                {
                    return Err(Error::new(
                        ErrorKind::AlreadyExists,
                        format!("adding device {name:?}"),
                    )
                    .detail(format!("its image is that of device {:?}", other.name)));
                }
                let attachment = Some(attachment.clone());
                Ok(vec![Op::PutDevice {
                    uid,
                    name: name.into(),
                    attachment,
                }])
            })
    }

    /// Removes a device that has no snapshots. Its image is not touched.
    pub fn device_remove(&self, name: &str) -> Result<()> {
        self.store
            .commit(SessionKind::Writer, Purse::Reserve, &mut |catalog| {
                let d = device(catalog, name)?;
                check_unmarked(&[d])?;
                let n = catalog.snapshots_of(&d.uid).len();
                if n > 0 {
                    return Err(
                        Error::new(ErrorKind::Busy, format!("removing device {name:?}"))
                            .detail(format!("it has {n} snapshots"))
                            .hint("delete them first with `still delete SNAP --device NAME`"),
                    );
                }
                Ok(vec![Op::RemoveDevice { uid: d.uid }])
            })
    }
}
