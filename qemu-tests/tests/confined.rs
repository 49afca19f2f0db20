// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the daemon gives up (docs/threat-model.md), looked at from outside while it serves a guest: privileges, system calls, executable
//! memory.

use std::process::Command;
use std::{fs, iter};

use anyhow::{Context, Result, ensure};
use harness::node::{self, Node, NodeConfig, UplinkConfig};
use harness::scenario::{self, WorkDir};
use harness::testpmd::{Testpmd, VirtioUser};

const NET_ADMIN: u64 = 1 << 12;

/// What the kernel says of a process and each of its threads: effective capabilities, the bounding set, and whether there is a filter.
fn privileges(pid: u32) -> Result<Vec<(u64, u64, bool)>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))?;
    let of = |status: &str| {
        let field =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).context("a field");
        let bits = |name| anyhow::Ok(u64::from_str_radix(field(name)?, 16)?);
        Ok((bits("CapEff:")?, bits("CapBnd:")?, field("Seccomp:")? == "2" && field("NoNewPrivs:")? == "1"))
    };
    tasks.map(|task| of(&fs::read_to_string(task?.path().join("status"))?)).collect()
}

/// Adds a port to the running node: what the command says, and whether it was done.
fn add(work: &WorkDir, port: &[&str]) -> Result<(String, bool)> {
    let control = work.file("control.sock");
    let control = control.to_str().context("a path")?;
    let arguments = ["port", "add"].into_iter().chain(port.iter().copied()).chain(["--control", control]);
    let output = Command::new(node::binary()?).args(arguments).output()?;
    let said = [output.stdout, output.stderr].concat();
    Ok((String::from_utf8(said)?, output.status.success()))
}

#[test]
fn a_node_that_serves_guests_has_no_privileges_and_runs_nothing() {
    scenario::run(|work| {
        let mut node = Node::start(work, &NodeConfig::crossconnect(&["a", "b"]))?;
        let [a, b] = [("a", 1), ("b", 2)].map(|(name, number)| VirtioUser::new(&node.socket(name), number));
        let mut guest = Testpmd::spawn(work, "guest", &[&a, &b], "io")?;
        guest.ready()?;
        guest.start_tx_first(1)?;
        node.wait_received("a", 1000)?;
        let pid = node.process().pid();
        let all = privileges(pid)?;
        ensure!(all.len() > 2 && all.iter().all(|thread| *thread == (0, 0, true)), "{all:x?}");
        let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let is_both =
            |line: &&str| line.split(' ').nth(1).is_some_and(|rights| rights.contains('w') && rights.contains('x'));
        ensure!(!maps.lines().any(|line| is_both(&line)), "memory is both written and executed:\n{maps}");
        let shared: Vec<_> = maps.lines().filter(|line| line.contains(" rw-s ")).collect();
        ensure!(!shared.is_empty(), "the guest's memory is not mapped:\n{maps}");

        let (said, done) = add(work, &["up", "--kind", "tap", "--interface", "shunt-none"])?;
        ensure!(!done && said.contains("CAP_NET_ADMIN") && said.contains("capabilities"), "{said}");
        ensure!(said.trim_end().lines().count() == 1, "{said}");
        let (said, done) = add(work, &["c", "--socket", work.file("c.sock").to_str().context("a path")?])?;
        ensure!(done, "{said}");
        node.terminate()
    });
}

/// A kind of port that is configured, or announced, keeps what it needs, and nothing else.
#[test]
fn what_ports_need_is_kept() {
    scenario::run(|work| {
        let announced =
            NodeConfig { extra: "\n[process]\ncapabilities = [\"net_admin\"]\n".into(), ..NodeConfig::bridge(&["a"]) };
        let configured =
            NodeConfig { uplinks: vec![UplinkConfig::new("up", "tap", "shunt-kept")], ..NodeConfig::bridge(&["a"]) };
        for config in [announced, configured] {
            let mut node = Node::start(work, &config)?;
            let all = privileges(node.process().pid())?;
            ensure!(all.iter().all(|thread| *thread == (NET_ADMIN, 0, true)), "{all:x?}");
            if config.uplinks.is_empty() {
                let (said, done) = add(work, &["up", "--kind", "tap", "--interface", "shunt-kept"])?;
                ensure!(done, "{said}");
            }
            node.terminate()?;
        }
        Ok(())
    });
}

/// The operator's word for who must look into it with a tracer.
#[test]
fn a_node_can_be_left_as_it_is() {
    scenario::run(|work| {
        let config = NodeConfig { extra: "\n[process]\nconfined = false\n".into(), ..NodeConfig::bridge(&["a"]) };
        let mut node = Node::start(work, &config)?;
        let own = privileges(std::process::id())?;
        let all = privileges(node.process().pid())?;
        ensure!(iter::zip(&all, &own).all(|(node, own)| node.0 == own.0 && !node.2), "{all:x?} and {own:x?}");
        node.terminate()
    });
}
