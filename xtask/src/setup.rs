// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What end-to-end tests and peer benchmarks need of the machine: Debian packages, hugepages, a guest kernel. As root,
//! what is missing is installed; otherwise it is named, and nothing is skipped.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::command::{output, program, run as execute, target_dir};

/// Files that show that a package is there, with the package.
type Needs = [(&'static str, &'static str)];

/// What the tests need.
pub(crate) const TESTS: [(&str, &str); 9] = [
    ("/usr/bin/dpdk-testpmd", "dpdk-dev"),
    ("/usr/bin/qemu-system-x86_64", "qemu-system-x86"),
    ("/bin/busybox", "busybox-static"),
    ("/bin/ip", "iproute2"),
    ("/sbin/ethtool", "ethtool"),
    ("/usr/bin/setpriv", "util-linux"),
    ("/usr/bin/stdbuf", "coreutils"),
    ("/usr/bin/python3", "python3"),
    ("/usr/bin/tshark", "tshark"),
];

/// What the peer benchmarks need.
pub(crate) const PEERS: [(&str, &str); 6] = [
    ("/usr/bin/dpdk-testpmd", "dpdk-dev"),
    ("/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk", "openvswitch-switch-dpdk"),
    ("/usr/bin/ovs-vsctl", "openvswitch-switch"),
    ("/usr/bin/ovsdb-tool", "openvswitch-common"),
    ("/bin/ip", "iproute2"),
    ("/sbin/ethtool", "ethtool"),
];

const HUGEPAGES: u64 = 1024;
const HUGEPAGES_FILE: &str = "/proc/sys/vm/nr_hugepages";
const HUGETLBFS: &str = "/dev/hugepages";
/// The package that depends on the newest kernel for virtual machines.
const KERNEL: &str = "linux-image-cloud-amd64";

/// Brings about all that is needed, or says what is missing and fails.
pub(crate) fn run(needs: &Needs) -> Result<()> {
    let missing = Missing::look(needs)?;
    if missing.is_nothing() {
        return Ok(());
    }
    if output(program("id").arg("-u"))?.trim() != "0" {
        bail!("this machine is not ready, and only root can change that; as root, run\n{}", missing.instructions());
    }
    missing.install()?;
    let still = Missing::look(needs)?;
    if !still.is_nothing() {
        bail!("this machine is still not ready; what remains to be done is\n{}", still.instructions());
    }
    Ok(())
}

/// What this machine lacks.
#[derive(Debug, Default, PartialEq, Eq)]
struct Missing {
    packages: Vec<&'static str>,
    hugepages: bool,
    hugetlbfs: bool,
    kernel: bool,
}

impl Missing {
    fn look(needs: &Needs) -> Result<Self> {
        let packages =
            needs.iter().filter(|(file, _)| !Path::new(file).exists()).map(|&(_, package)| package).collect();
        let pages = fs::read_to_string(HUGEPAGES_FILE).with_context(|| format!("cannot read {HUGEPAGES_FILE}"))?;
        let mounts = fs::read_to_string("/proc/mounts")?;
        Ok(Self {
            packages,
            hugepages: pages.trim().parse::<u64>().unwrap_or(0) < HUGEPAGES,
            hugetlbfs: !mounts.lines().any(|l| l.split_whitespace().nth(2) == Some("hugetlbfs")),
            kernel: *needs == TESTS && !has_kernel(Path::new("/")) && !has_kernel(&kernel_dir()),
        })
    }

    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    fn instructions(&self) -> String {
        let mut lines = Vec::new();
        if !self.packages.is_empty() {
            lines.push(format!("  apt-get install --no-install-recommends {}", self.packages.join(" ")));
        }
        if self.kernel {
            lines.push(format!("  apt-get install --no-install-recommends {KERNEL}"));
        }
        if self.hugetlbfs {
            lines.push(format!("  mkdir -p {HUGETLBFS} && mount -t hugetlbfs nodev {HUGETLBFS}"));
        }
        if self.hugepages {
            lines.push(format!("  echo {HUGEPAGES} > {HUGEPAGES_FILE}"));
        }
        lines.join("\n")
    }

    fn install(&self) -> Result<()> {
        if !self.packages.is_empty() || self.kernel {
            execute(program("apt-get").args(["update", "--quiet=2"]))?;
        }
        if !self.packages.is_empty() {
            let mut apt = program("apt-get");
            apt.args(["install", "--yes", "--quiet=2", "--no-install-recommends"]).args(&self.packages);
            execute(apt.env("DEBIAN_FRONTEND", "noninteractive"))?;
        }
        if self.kernel {
            unpack_kernel()?;
        }
        if self.hugetlbfs {
            fs::create_dir_all(HUGETLBFS)?;
            execute(program("mount").args(["-t", "hugetlbfs", "nodev", HUGETLBFS]))?;
        }
        if self.hugepages {
            fs::write(HUGEPAGES_FILE, HUGEPAGES.to_string())
                .with_context(|| format!("cannot write {HUGEPAGES_FILE}"))?;
        }
        Ok(())
    }
}

/// Fetches the guest's kernel and unpacks it below the target directory. It is not installed: that would build an initial
/// RAM disk for a machine that never boots from it.
fn unpack_kernel() -> Result<()> {
    let depends = output(program("apt-cache").args(["depends", "--important", KERNEL]))?;
    let package = kernel_package(&depends).with_context(|| format!("{KERNEL} names no kernel: {depends}"))?.to_owned();
    let into = kernel_dir();
    let _ = fs::remove_dir_all(&into);
    fs::create_dir_all(&into)?;
    execute(program("apt-get").args(["download", "--quiet=2", &package]).current_dir(&into))?;
    let archives: Vec<PathBuf> = fs::read_dir(&into)?.filter_map(|e| Some(e.ok()?.path())).collect();
    let archive = archives.iter().find(|p| p.extension().is_some_and(|e| e == "deb")).context("no package came")?;
    execute(program("dpkg").arg("-x").arg(archive).arg(&into))
}

/// The first dependency that is a kernel, in the words of `apt-cache depends`.
fn kernel_package(depends: &str) -> Option<&str> {
    depends.lines().filter_map(|l| l.trim().strip_prefix("Depends: ")).find(|p| p.starts_with("linux-image-"))
}

/// Where the end-to-end tests look for it.
fn kernel_dir() -> PathBuf {
    target_dir().join("guest-kernel")
}

/// True if there is a kernel below `root` together with its modules.
fn has_kernel(root: &Path) -> bool {
    let Ok(entries) = fs::read_dir(root.join("boot")) else { return false };
    entries.filter_map(Result::ok).any(|entry| {
        let name = entry.file_name();
        let version = name.to_str().and_then(|n| n.strip_prefix("vmlinuz-"));
        version.is_some_and(|v| root.join("lib/modules").join(v).join("kernel/drivers/net/virtio_net.ko").exists())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_name_everything_that_is_missing() {
        let missing =
            Missing { packages: vec!["dpdk-dev", "iproute2"], hugepages: true, hugetlbfs: true, kernel: true };
        let text = missing.instructions();
        assert!(text.contains("--no-install-recommends dpdk-dev iproute2\n"), "{text}");
        assert!(text.contains(KERNEL) && text.contains("mount -t hugetlbfs") && text.contains("echo 1024 >"), "{text}");
        assert!(Missing::default().is_nothing());
    }

    #[test]
    fn the_kernel_behind_the_meta_package_is_found() {
        let depends = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n";
        assert_eq!(kernel_package(depends), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(kernel_package("linux-image-cloud-amd64\n"), None);
    }
}
