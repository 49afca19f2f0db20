// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's user space: busybox, iproute2, the stock kernel's modules for virtio and for tunnels, and a script that brings
//! the network up and serves a shell on the serial line.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::archive::Archive;
use super::kernel::Kernel;
use super::{NO_NETWORK, READY};
use crate::process::run;

/// The modules, in the order in which they must be loaded.
const MODULES: [&str; 9] = [
    "drivers/virtio/virtio_ring.ko",
    "drivers/virtio/virtio.ko",
    "drivers/virtio/virtio_pci_legacy_dev.ko",
    "drivers/virtio/virtio_pci_modern_dev.ko",
    "drivers/virtio/virtio_pci.ko",
    "drivers/char/virtio_console.ko",
    "net/core/failover.ko",
    "drivers/net/net_failover.ko",
    "drivers/net/virtio_net.ko",
];

/// The modules for tunnels and VLANs, in their order; loaded when a test asks for them.
const OVERLAYS: [&str; 11] = [
    "net/ipv4/gre.ko",
    "net/ipv4/ip_tunnel.ko",
    "net/ipv4/ip_gre.ko",
    "net/ipv4/udp_tunnel.ko",
    "net/ipv6/ip6_udp_tunnel.ko",
    "drivers/net/geneve.ko",
    "net/llc/llc.ko",
    "net/802/stp.ko",
    "net/802/garp.ko",
    "net/802/mrp.ko",
    "net/8021q/8021q.ko",
];

/// iproute2's `ip`, because busybox's makes no tunnels.
const IP: &str = "/sbin/ip";

/// Writes the archive, with some more programs of this machine, to `path`.
pub(super) fn write(kernel: &Kernel, programs: &[PathBuf], path: &Path) -> Result<()> {
    let mut archive = Archive::default();
    for directory in ["bin", "dev", "modules", "modules/overlays", "proc", "sys", "tmp"] {
        archive.directory(directory);
    }
    archive.device("dev/console", 5, 1);
    archive.file("bin/busybox", &fs::read("/bin/busybox").context("busybox-static is not installed")?);
    for (order, module) in MODULES.iter().enumerate() {
        archive.file(&format!("modules/{order}.ko"), &kernel.module(module)?);
    }
    for (order, module) in OVERLAYS.iter().enumerate() {
        archive.file(&format!("modules/overlays/{order:02}.ko"), &kernel.module(module)?);
    }
    for program in programs.iter().map(PathBuf::as_path).chain([Path::new(IP)]) {
        add_program(&mut archive, program)?;
    }
    archive.file("init", script().as_bytes());
    fs::write(path, archive.finish())?;
    Ok(())
}

/// Adds a program of this machine, at its own place, and the libraries that it is linked with.
fn add_program(archive: &mut Archive, program: &Path) -> Result<()> {
    let linked = run(&["ldd".as_ref(), program.as_os_str()])?;
    let libraries = linked.split_whitespace().filter(|word| word.starts_with('/'));
    let files: BTreeSet<&Path> = libraries.map(Path::new).chain([program]).collect();
    // Parents come before what is in them.
    let directories: BTreeSet<PathBuf> =
        files.iter().flat_map(|file| file.ancestors().skip(1)).map(Path::to_owned).collect();
    for directory in &directories {
        if let Some(name) = inside(directory).filter(|name| !name.is_empty()) {
            archive.directory(name);
        }
    }
    for file in files {
        let content = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        archive.file(inside(file).with_context(|| format!("an odd name: {}", file.display()))?, &content);
    }
    Ok(())
}

/// A path of this machine as the archive names it.
fn inside(path: &Path) -> Option<&str> {
    path.strip_prefix("/").ok()?.to_str()
}

/// `/init`. The address comes from the kernel command line (`ip=`). IPv6 is off so that nothing is sent unasked.
fn script() -> String {
    format!(
        "#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
for module in 0 1 2 3 4 5 6 7 8; do insmod /modules/$module.ko; done
echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6
echo 1 > /proc/sys/kernel/sysrq
ip link set lo up
ip addr add \"$(sed -n 's/.*ip=\\([0-9.]*\\).*/\\1/p' /proc/cmdline)/24\" dev eth0
ip link set eth0 up || echo {NO_NETWORK}
stty -echo -onlcr </dev/ttyS0
echo {READY}
# line by line: a shell that reads a terminal itself would prompt
while IFS= read -r line; do eval \"$line\"; done </dev/ttyS0 >/dev/ttyS0 2>&1
"
    )
}
