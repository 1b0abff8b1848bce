//! A real Debian guest on disks of the store: it installs and writes, and what snapshots promise holds for it.

mod machine;
mod resume;
#[allow(dead_code, reason = "the tests of the server use the rest")]
#[path = "../serve/server.rs"]
mod server;
#[path = "../support/mod.rs"]
mod support;
mod volumes;

use machine::{Machine, TOOLS, kit};
use std::path::Path;
use support::{Home, has, run, tool};

/// Installs a package in the Debian system and writes a file to it and to the second disk.
const INSTALL: &str = "
set -e
chroot /root /bin/bash -ec 'export PATH=/usr/sbin:/usr/bin; dpkg -i /opt/hello.deb; hello > /etc/said; sync'
mkdir /data; mount -t ext4 /dev/vdb /data
cp /root/etc/said /data/said; umount /data
";
/// Fails unless the system is as Debian's packages made it and nothing was ever written to the second disk.
const UNTOUCHED: &str = "
set -e
! chroot /root /usr/bin/hello
test ! -e /root/etc/said
chroot /root /usr/bin/dpkg --audit
mkdir /data; mount -t ext4 /dev/vdb /data; test ! -e /data/said; umount /data
";
/// Fails unless what `INSTALL` did is there.
const INSTALLED: &str = "
set -e
chroot /root /bin/bash -ec 'export PATH=/usr/sbin:/usr/bin; dpkg --verify hello; hello | cmp - /etc/said'
mkdir /data; mount -t ext4 /dev/vdb /data; cmp /data/said /root/etc/said; umount /data
";

fn fsck(disk: &Path) {
    run(tool("e2fsck").arg("-fn").arg(disk)).code(0);
}

fn raw(disk: &Path) -> String {
    format!("file={},format=raw", disk.display())
}

#[test]
fn a_guest_goes_back_to_before_an_installation_and_forward_again() {
    if !has("guest", &TOOLS) {
        return;
    }
    let (kit, home) = (kit(), Home::new());
    let (system, data) = (home.path("system.raw"), home.path("data.raw"));
    run(tool("cp")
        .arg("--sparse=always")
        .arg(kit.join("debian.raw"))
        .arg(&system))
    .code(0);
    run(tool("mkfs.ext4").args(["-q"]).arg(&data).arg("32M")).code(0);
    home.ok(&["device", "add", "system", "system.raw"]);
    home.ok(&["device", "add", "data", "data.raw"]);
    home.ok(&["create", "clean"]);
    let drives = [raw(&system), raw(&data)];
    Machine::boot(&kit, INSTALL, &drives).finish();
    home.ok(&["create", "installed"]);

    home.ok(&["goto", "clean"]);
    fsck(&system);
    Machine::boot(&kit, UNTOUCHED, &drives).finish();
    home.ok(&["goto", "installed"]);
    fsck(&data);
    Machine::boot(&kit, INSTALLED, &drives).finish();
}

#[test]
fn no_snapshot_is_made_of_a_disk_that_a_guest_has_open() {
    if !has("guest", &TOOLS) {
        return;
    }
    let (kit, home) = (kit(), Home::new());
    let system = home.path("system.raw");
    run(tool("cp")
        .arg("--sparse=always")
        .arg(kit.join("debian.raw"))
        .arg(&system))
    .code(0);
    home.ok(&["device", "add", "system", "system.raw"]);
    home.ok(&["create", "clean"]);
    let mut machine = Machine::boot(&kit, "echo at work; sleep 1000", &[raw(&system)]);
    machine.wait_for("at work");
    home.run(&["create", "second"]).code(5);
    home.run(&["goto", "clean"]).code(5);
    machine.power_off_hard();
    home.ok(&["goto", "clean"]);
    fsck(&system);
}
