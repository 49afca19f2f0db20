// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is given up is gone: tried in processes of their own, this test binary run again.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::{env, fs};

use rustix::process::chroot;
use vm_memory::mmap::MmapRegionBuilder;

use super::*;
use crate::Node;
use crate::config::{ControlConfig, Name, PortConfig, PortKind, SocketPath};

/// What the process is to try; set in its environment only.
const TRIED: &str = "SHUNT_TEST_CONFINED";
/// The exit status of one that did what it wanted.
const DONE: i32 = 77;
const SIGSYS: i32 = 31;

/// Not a test of its own: the process that is confined. Only this thread is, with what it starts: the harness's does nothing.
#[test]
fn confined_process() {
    let Some(tried) = env::var_os(TRIED) else { return };
    let wanted = if tried == "keep" { vec![Capability::NetRaw] } else { Vec::new() };
    let kept = capabilities::keep(wanted.into_iter()).expect("capabilities");
    filter::install(false).expect("a filter");
    match tried.to_str().expect("text") {
        "serve" => serve(),
        "drop" => assert_eq!(privileges(), (0, 0, 1, 2), "{kept:?}"),
        "keep" => assert_eq!(privileges(), (1 << 13, 0, 1, 2), "{kept:?}"),
        "exec" => assert!(Command::new("/bin/true").status().is_ok_and(|status| status.signal() != Some(SIGSYS))),
        "chroot" => chroot("/").expect("another root"),
        "code" => {
            let code = MmapRegionBuilder::<()>::new(4096).with_mmap_prot(libc::PROT_READ | libc::PROT_EXEC);
            code.build().expect("executable memory");
        }
        "data" => {
            MmapRegionBuilder::<()>::new(4096)
                .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
                .build()
                .expect("memory");
        }
        other => panic!("{other}?"),
    }
    std::process::exit(DONE);
}

/// A node starts, serves and stops.
fn serve() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| SocketPath::new(directory.path().join(name)).expect("a path");
    let control = ControlConfig {
        socket: path("control.sock"),
        state_dir: directory.path().join("state"),
        ..ControlConfig::default()
    };
    let port =
        PortConfig::vhost_user(Name::new("vm0").expect("a name"), directory.path().join("vm0.sock")).expect("a port");
    let parsed = Config::parse("", "node.toml".as_ref(), &crate::config::Machine::current()).expect("a configuration");
    let node = Node::start(&Config { control, ports: vec![port], ..parsed }).expect("a node");
    assert_eq!(node.handle().ports().expect("ports").len(), 1);
    node.stop();
}

/// Effective capabilities, the bounding set, whether there may be no new privileges, and the mode of seccomp.
fn privileges() -> (u64, u64, u64, u64) {
    let status = fs::read_to_string("/proc/thread-self/status").expect("procfs");
    let field = |name: &str, radix| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        u64::from_str_radix(line.trim(), radix).expect(name)
    };
    (field("CapEff:", 16), field("CapBnd:", 16), field("NoNewPrivs:", 10), field("Seccomp:", 10))
}

fn tried(what: &str) -> ExitStatus {
    let mut command = Command::new(env::current_exe().expect("this binary"));
    command.args(["--exact", "confine::tests::confined_process", "--nocapture"]).env(TRIED, what);
    command.status().expect("a process")
}

#[test]
fn a_confined_node_serves() {
    for what in ["serve", "data"] {
        assert_eq!(tried(what).code(), Some(DONE), "{what}");
    }
}

#[test]
fn what_is_not_listed_ends_the_process() {
    for what in ["chroot", "code"] {
        assert_eq!(tried(what).signal(), Some(SIGSYS), "{what}");
    }
    assert_ne!(tried("exec").code(), Some(DONE), "a program was executed");
}

#[test]
fn capabilities_go_that_nothing_needs() {
    let is_privileged = lacking(&[Capability::NetRaw]).is_empty();
    for what in if is_privileged { &["drop", "keep"][..] } else { &[] } {
        assert_eq!(tried(what).code(), Some(DONE), "{what}");
    }
    // Whoever has other threads would confine itself in part.
    assert!(matches!(confine(&Config::default()), Err(ConfineError::Threads(n)) if n > 1));
}

#[test]
fn kinds_of_ports_need_what_they_need() {
    let of = |kind| Capability::of(kind).iter().map(Capability::to_string).collect::<Vec<_>>().join(" ");
    assert_eq!(of(PortKind::VhostUser), "");
    assert_eq!([of(PortKind::Tap), of(PortKind::Udp)], ["CAP_NET_ADMIN"; 2]);
    assert_eq!(of(PortKind::AfPacket), "CAP_NET_ADMIN CAP_NET_RAW");
    assert_eq!(of(PortKind::AfXdp), "CAP_NET_ADMIN CAP_NET_RAW CAP_BPF CAP_IPC_LOCK");
}
