// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A network namespace of the host: a network stack of its own, so that the machine's own network is left alone.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::{Process, run};
use crate::scenario::WorkDir;

/// A network namespace; it goes away with the value.
#[derive(Debug)]
pub struct NetNs {
    name: String,
}

impl NetNs {
    /// Makes a namespace with its loopback up. Needs root.
    pub fn create(label: &str) -> Result<Self> {
        let name = format!("shunt-{}-{label}", std::process::id());
        run(&["ip", "netns", "add", &name])?;
        let ns = Self { name };
        ns.ip("link set lo up")?;
        Ok(ns)
    }

    /// What the system calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Runs `ip ARGS` inside.
    pub fn ip(&self, args: &str) -> Result<String> {
        run(&self.command(&[&["ip"], args.split_whitespace().collect::<Vec<_>>().as_slice()].concat()))
    }

    /// Wires two namespaces by a veth pair: `name` inside, `peer_name` in `peer`, both up.
    pub fn wire(&self, name: &str, peer: &Self, peer_name: &str) -> Result<()> {
        let (here, there) = (&self.name, &peer.name);
        let words = format!("link add {name} netns {here} type veth peer name {peer_name} netns {there}");
        run(&[&["ip"], words.split_whitespace().collect::<Vec<_>>().as_slice()].concat())?;
        self.ip(&format!("link set {name} up"))?;
        peer.ip(&format!("link set {peer_name} up")).map(drop)
    }

    /// Runs a shell command inside, to its end.
    pub fn sh(&self, command: &str) -> Result<String> {
        run(&self.command(&["sh", "-c", command]))
    }

    /// Runs `body` in a thread inside.
    pub fn within<T: Send>(&self, body: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let namespace = File::open(self.path())?;
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
                body()
            });
            inside.join().unwrap_or_else(|_| bail!("a thread in namespace {} panicked", self.name))
        })
    }

    /// Starts a process inside.
    pub fn spawn(&self, work: &WorkDir, name: &str, argv: &[&str]) -> Result<Process> {
        Process::spawn(work, name, &self.command(argv))
    }

    /// The command line that runs `argv` inside.
    pub fn command(&self, argv: &[&str]) -> Vec<OsString> {
        ["ip", "netns", "exec", &self.name].iter().chain(argv).map(OsString::from).collect()
    }
}

impl Drop for NetNs {
    fn drop(&mut self) {
        let _ = run(&["ip", "netns", "delete", &self.name]);
    }
}
