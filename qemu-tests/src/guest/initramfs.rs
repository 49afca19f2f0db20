// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's user space: busybox, the virtio modules of the stock kernel, and a script that brings the network up and
//! serves a shell on a virtio console.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::archive::Archive;
use super::kernel::Kernel;
use super::{NO_NETWORK, READY};

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

/// Writes the archive to `path`.
pub(super) fn write(kernel: &Kernel, path: &Path) -> Result<()> {
    let mut archive = Archive::default();
    for directory in ["bin", "dev", "modules", "proc", "sys", "tmp"] {
        archive.directory(directory);
    }
    archive.device("dev/console", 5, 1);
    archive.file("bin/busybox", &fs::read("/bin/busybox").context("busybox-static is not installed")?);
    for (order, module) in MODULES.iter().enumerate() {
        let content =
            fs::read(kernel.modules.join(module)).with_context(|| format!("the guest kernel has no {module}"))?;
        archive.file(&format!("modules/{order}.ko"), &content);
    }
    archive.file("init", script().as_bytes());
    fs::write(path, archive.finish())?;
    Ok(())
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
