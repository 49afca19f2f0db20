// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where the guest's kernel is: unpacked by `cargo xtask setup` under the target directory, or installed on this machine.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::node::target_dir;

/// A kernel and the modules that belong to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kernel {
    /// The bootable image.
    pub(super) image: PathBuf,
    /// The tree of its modules (`…/lib/modules/<version>/kernel`).
    pub(super) modules: PathBuf,
}

impl Kernel {
    /// The content of a module, by its path in the tree.
    pub(super) fn module(&self, name: &str) -> Result<Vec<u8>> {
        fs::read(self.modules.join(name)).with_context(|| format!("the guest kernel has no {name}"))
    }
}

/// Finds a kernel: below `$SHUNT_GUEST_KERNEL`, `target/guest-kernel` of the workspace or of this build, or `/`.
pub(super) fn find() -> Result<Kernel> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guest-kernel");
    let roots = [
        std::env::var_os("SHUNT_GUEST_KERNEL").map(PathBuf::from),
        Some(target_dir()?.join("guest-kernel")),
        Some(workspace),
        Some("/".into()),
    ];
    roots.into_iter().flatten().find_map(|root| below(&root)).context("no guest kernel; run `cargo xtask setup`")
}

/// The newest version below `root` that has both an image and modules.
fn below(root: &Path) -> Option<Kernel> {
    let mut images: Vec<PathBuf> = fs::read_dir(root.join("boot")).ok()?.filter_map(|e| Some(e.ok()?.path())).collect();
    images.sort();
    images.into_iter().rev().find_map(|image| {
        let version = image.file_name()?.to_str()?.strip_prefix("vmlinuz-")?.to_owned();
        let modules = root.join("lib/modules").join(version).join("kernel");
        modules.is_dir().then_some(Kernel { image, modules })
    })
}
