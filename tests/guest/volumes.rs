//! Guests on volumes, through `still serve`: snapshots of two disks at one instant while the guest writes, and the way back.

use crate::machine::{Machine, TOOLS, kit};
use crate::server::Server;
use crate::support::{Home, Ran, has, run, tool};
use std::net::TcpListener;
use std::path::Path;

/// Installs a package, then writes numbers to both disks for ever, each to the second when it is durable on the first.
const LOAD: &str = "
set -e
chroot /root /bin/bash -ec 'export PATH=/usr/sbin:/usr/bin; dpkg -i /opt/hello.deb; sync'
mkdir /data; mount -t ext4 /dev/vdb /data
n=0
while true; do
    n=$((n + 1))
    echo $n | dd of=/root/etc/number conv=fsync 2>/dev/null
    echo $n | dd of=/data/number conv=fsync 2>/dev/null
    dd if=/dev/urandom of=/root/etc/noise.$((n % 8)) bs=64k count=4 2>/dev/null
    echo at $n.
done
";
/// Fails unless the package is whole and both disks are of one instant; tells of when.
const LOOK: &str = "
set -e
chroot /root /bin/bash -ec 'export PATH=/usr/sbin:/usr/bin; dpkg --verify hello; hello'
mkdir /data; mount -t ext4 /dev/vdb /data
first=$(cat /root/etc/number) second=$(cat /data/number)
test $second -le $first; test $first -le $((second + 1))
echo numbers $first
umount /data
";

/// Two volumes, the first a clone of Debian's disk.
fn home_with_volumes(kit: &Path) -> Home {
    let home = Home::new();
    let golden = kit.join("debian.raw").display().to_string();
    home.ok(&["import", &golden, "--device", "golden", "--name", "v1"]);
    run(tool("mkfs.ext4")
        .args(["-q"])
        .arg(home.path("empty.raw"))
        .arg("32M"))
    .code(0);
    home.ok(&["import", "empty.raw", "--device", "empty", "--name", "v1"]);
    home.ok(&["volume", "create", "system", "--from", "golden@v1"]);
    home.ok(&["volume", "create", "data", "--from", "empty@v1"]);
    home
}

fn drives(server: &Server) -> [String; 2] {
    ["system", "data"].map(|export| {
        let socket = server.socket.display();
        format!(
            "file.driver=nbd,file.server.type=unix,file.server.path={socket},file.export={export},format=raw"
        )
    })
}

/// The server notices in its own time that a client has gone.
fn when_free(go: impl Fn() -> Ran) {
    for _ in 0..1000 {
        let ran = go();
        if ran.status.code() != Some(5) {
            ran.code(0);
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("{}", go().story());
}

fn fsck(home: &Home, volume: &str) {
    let file = format!("{volume}.out");
    home.ok(&["export", volume, &file]);
    run(tool("e2fsck").arg("-fn").arg(home.path(&file))).code(0);
}

#[test]
fn a_group_snapshot_of_a_guest_at_work_is_one_instant_and_it_boots_again_from_there() {
    if !has("guest volumes", &TOOLS) {
        return;
    }
    let kit = kit();
    let home = home_with_volumes(&kit);
    let server = Server::start(&home, &[]);
    let mut machine = Machine::boot(&kit, LOAD, &drives(&server));
    machine.wait_for("at 5.");
    let group = ["create", "live", "--device", "system", "--device", "data"];
    home.ok(&group);
    machine.wait_for("at 12.");
    home.run(&["goto", "live", "--device", "system"]).code(5);
    machine.power_off_hard();
    when_free(|| home.run(&["goto", "live", "--device", "system", "--device", "data"]));

    let said = Machine::boot(&kit, LOOK, &drives(&server)).finish();
    let number = said.split("numbers ").nth(1).unwrap_or_default();
    let number = number.split_whitespace().next().unwrap_or_default();
    let number: u64 = number.parse().expect("a number");
    assert!((5..=13).contains(&number), "{number}: {said}");
    server.stop().code(0);
    for volume in ["system", "data"] {
        fsck(&home, volume);
    }
    home.ok(&["verify"]);
}

/// The guest's own kernel attaches an export that may be written and one that may not.
fn kernel_client(port: u16) -> String {
    format!(
        "
set -e
ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
nbd() {{ chroot /root /usr/sbin/nbd-client \"$@\"; }}
nbd 10.0.2.2 {port} /dev/nbd0 -N data
nbd 10.0.2.2 {port} /dev/nbd1 -N empty@v1 -readonly
mkdir /new /old
mount -t ext4 /dev/nbd0 /new; mount -t ext4 -o ro,noload /dev/nbd1 /old
dd if=/dev/urandom of=/new/noise bs=1M count=8 2>/dev/null; sync
md5sum /new/noise | cut -c1-32 | sed 's/^/sum /'
test ! -e /old/noise
umount /new; umount /old
nbd -d /dev/nbd0; nbd -d /dev/nbd1
"
    )
}

#[test]
fn the_kernels_own_client_reads_and_writes_exports() {
    if !has("guest nbd", &TOOLS) {
        return;
    }
    let kit = kit();
    let home = home_with_volumes(&kit);
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
    let port = port.expect("a free port").port();
    let server = Server::start(&home, &["--nbd", &format!("tcp:127.0.0.1:{port}")]);
    let system = &drives(&server)[..1];
    let said = Machine::boot(&kit, &kernel_client(port), system).finish();
    let sum = said.split("sum ").nth(1).expect("it was told");
    server.stop().code(0);
    fsck(&home, "data");
    let noise = home.path("noise");
    run(tool("debugfs")
        .arg("-R")
        .arg(format!("dump noise {}", noise.display()))
        .arg(home.path("data.out")))
    .code(0);
    let ours = run(tool("md5sum").arg(&noise)).code(0);
    assert_eq!(ours.text()[..32], sum[..32]);
}
