// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The SDK's examples as processes.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::Result;

use crate::node;

/// The command line of an example of the SDK, which is brought up to date first (once).
pub fn example<S: AsRef<std::ffi::OsStr>>(name: &str, args: &[S]) -> Result<Vec<OsString>> {
    let program = examples()?.join(name).into_os_string();
    Ok(std::iter::once(program).chain(args.iter().map(|arg| arg.as_ref().to_owned())).collect())
}

/// Where they are built.
pub fn examples() -> Result<&'static PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let built = node::release_build(&["--package", "shunt-cnf", "--examples"]);
        built.map(|dir| dir.join("examples")).map_err(|error| format!("{error:#}"))
    });
    built.as_ref().map_err(|error| anyhow::anyhow!("no examples: {error}"))
}
