// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the end-to-end tests need of the machine: Debian packages, hugepages, a guest kernel.
//!
//! As root, what is missing is installed. Otherwise it is named, with the commands that install it, and that is a failure:
//! a test that cannot run must not look like one that passed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::stage::{sh, sh_with, target_dir};

/// What must be there, and the Debian package that brings it.
const NEEDS: &[(&str, &str)] = &[
    ("/usr/bin/dpdk-testpmd", "dpdk-dev"),
    ("/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk", "openvswitch-switch-dpdk"),
    ("/usr/bin/qemu-system-x86_64", "qemu-system-x86"),
    ("/bin/busybox", "busybox-static"),
    ("/sbin/ip", "iproute2"),
    ("/bin/ping", "iputils-ping"),
];
/// The package whose dependency is Debian's current guest kernel.
const KERNEL: &str = "linux-image-cloud-amd64";
const HUGEPAGES: u64 = 1024;
const HUGE_COUNT: &str = "/proc/sys/vm/nr_hugepages";
const HUGE_MOUNT: &str = "/dev/hugepages";

pub(crate) fn ensure() -> Result<()> {
    let missing: Vec<&str> =
        NEEDS.iter().filter(|(file, _)| !Path::new(file).exists()).map(|(_, name)| *name).collect();
    let kernel = guest_kernel();
    let huge = hugepages()?;
    if missing.is_empty() && kernel.is_some() && huge {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        return Err(instructions(&missing, kernel.is_some(), huge));
    }
    let apt = [("DEBIAN_FRONTEND", "noninteractive")];
    if !missing.is_empty() || kernel.is_none() {
        sh_with("apt-get", &["update", "-qq"], &apt)?;
    }
    if !missing.is_empty() {
        let mut args = vec!["install", "-y", "-qq", "--no-install-recommends"];
        args.extend(&missing);
        sh_with("apt-get", &args, &apt)?;
    }
    if kernel.is_none() {
        unpack_kernel()?;
    }
    reserve_hugepages()
}

fn instructions(missing: &[&str], kernel: bool, huge: bool) -> anyhow::Error {
    let mut lines = vec!["the end-to-end tests need more than this machine has; as root:".to_owned()];
    if !missing.is_empty() {
        lines.push(format!("  apt-get install -y --no-install-recommends {}", missing.join(" ")));
    }
    if !kernel {
        lines.push("  cargo xtask setup      # unpacks a guest kernel below target/".to_owned());
    }
    if !huge {
        lines.push(format!("  mkdir -p {HUGE_MOUNT} && mount -t hugetlbfs nodev {HUGE_MOUNT}"));
        lines.push(format!("  echo {HUGEPAGES} > {HUGE_COUNT}"));
    }
    anyhow::Error::msg(lines.join("\n"))
}

/// Where the harness looks: below `target/`, then on this machine.
fn guest_kernel() -> Option<PathBuf> {
    [target_dir().join("guest-kernel"), PathBuf::from("/")].into_iter().find(|root| {
        let images = fs::read_dir(root.join("boot")).into_iter().flatten().flatten();
        let mut versions =
            images.filter_map(|entry| Some(entry.file_name().to_str()?.strip_prefix("vmlinuz-")?.to_owned()));
        versions.any(|version| root.join("lib/modules").join(version).join("kernel").is_dir())
    })
}

/// Downloads Debian's cloud kernel and unpacks it without installing it: nothing of this machine boots it.
fn unpack_kernel() -> Result<()> {
    let output = std::process::Command::new("apt-cache").args(["depends", "--important", KERNEL]).output()?;
    let text = String::from_utf8(output.stdout).context("apt-cache's answer")?;
    let package = text.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    let package = package.with_context(|| format!("{KERNEL} depends on no kernel"))?;
    let to = target_dir().join("guest-kernel");
    fs::create_dir_all(&to)?;
    let status = std::process::Command::new("apt-get").args(["download", "-qq", package]).current_dir(&to).status()?;
    ensure!(status.success(), "cannot download {package}");
    let archive = fs::read_dir(&to)?.flatten().map(|entry| entry.path());
    let archive = archive.filter(|path| path.extension().is_some_and(|extension| extension == "deb")).max();
    let archive = archive.with_context(|| format!("{package} was not downloaded"))?;
    sh("dpkg-deb", &["--extract", &archive.display().to_string(), &to.display().to_string()])?;
    fs::remove_file(archive)?;
    Ok(())
}

fn hugepages() -> Result<bool> {
    let mounted = fs::read_to_string("/proc/mounts")?.lines().any(|line| line.contains(" hugetlbfs "));
    Ok(mounted && reserved()? >= HUGEPAGES)
}

fn reserved() -> Result<u64> {
    fs::read_to_string(HUGE_COUNT)?.trim().parse().context("the number of hugepages")
}

fn reserve_hugepages() -> Result<()> {
    if hugepages()? {
        return Ok(());
    }
    if !fs::read_to_string("/proc/mounts")?.lines().any(|line| line.contains(" hugetlbfs ")) {
        fs::create_dir_all(HUGE_MOUNT)?;
        sh("mount", &["-t", "hugetlbfs", "nodev", HUGE_MOUNT])?;
    }
    if reserved()? < HUGEPAGES {
        fs::write(HUGE_COUNT, HUGEPAGES.to_string())?;
    }
    let got = reserved()?;
    if got < HUGEPAGES {
        bail!("only {got} of {HUGEPAGES} hugepages of 2 MiB could be reserved");
    }
    Ok(())
}
