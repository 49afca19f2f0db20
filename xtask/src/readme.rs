// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the README says works: its commands are run here, so that it cannot rot.

use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::command::{cargo, root, run as execute, target_dir};

pub(crate) fn run() -> Result<()> {
    let readme = std::fs::read_to_string(root().join("README.md"))?;
    for command in ["cargo run --release -- demo", "cargo xtask test", "cargo run --release -- bench pvp --seconds 2"] {
        ensure!(readme.lines().any(|line| line == command), "the README no longer has `{command}`");
    }
    execute(&mut cargo(&["run", "--release", "--quiet", "--", "demo", "--seconds", "2"]))?;
    demo_json()?;
    execute(&mut cargo(&["run", "--release", "--quiet", "--", "bench", "pvp", "--seconds", "2"]))?;
    a_node()
}

/// The demo's JSON is a contract.
fn demo_json() -> Result<()> {
    let output = cargo(&["run", "--release", "--quiet", "--", "demo", "--seconds", "2", "--json"]).output()?;
    ensure!(output.status.success(), "demo --json ended with {}", output.status);
    let report: Value = serde_json::from_slice(&output.stdout).context("demo --json does not print JSON")?;
    for key in ["seconds", "forwarded", "verified", "corrupted", "lost", "ports"] {
        ensure!(!report[key].is_null(), "demo --json has no {key:?}");
    }
    ensure!(report["corrupted"] == 0 && report["lost"] == 0, "the demo lost or corrupted packets: {report}");
    ensure!(report["verified"].as_u64() > Some(0), "the demo verified nothing: {report}");
    for port in report["ports"].as_array().into_iter().flatten() {
        ensure!(port["ring"] == "packed", "a port of the demo has no packed rings: {port}");
    }
    Ok(())
}

/// Runs the README's node (its sockets moved to a directory of our own) and asks it.
fn a_node() -> Result<()> {
    let directory = target_dir().join("readme");
    std::fs::create_dir_all(&directory)?;
    let here = directory.display().to_string();
    let example = std::fs::read_to_string(root().join("docs/examples/node.toml"))?;
    let control = directory.join("control.sock");
    let text = format!(
        "{}\n[control]\nsocket = {control:?}\nstate_dir = {:?}\n",
        example.replace("/run/shunt", &here),
        directory.join("state")
    );
    let config = directory.join("node.toml");
    std::fs::write(&config, text)?;
    let shunt = target_dir().join("release/shunt");
    let mut node = Command::new(&shunt).args(["run", "--config"]).arg(&config).spawn()?;
    let result = ask(&shunt, &control, &mut node);
    terminate(&mut node)?;
    result
}

fn ask(shunt: &Path, control: &Path, node: &mut Child) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let output = Command::new(shunt).args(["port", "list", "--json", "--control"]).arg(control).output()?;
        if output.status.success() {
            let ports: Value = serde_json::from_slice(&output.stdout)?;
            ensure!(ports.as_array().is_some_and(|ports| ports.len() == 2), "the example has two ports: {ports}");
            break;
        }
        if let Some(status) = node.try_wait()? {
            bail!("the node ended with {status}");
        }
        ensure!(Instant::now() < deadline, "the node does not answer: {}", String::from_utf8_lossy(&output.stderr));
        std::thread::sleep(Duration::from_millis(20));
    }
    let status = Command::new(shunt).args(["stats", "--control"]).arg(control).status()?;
    ensure!(status.success(), "`shunt stats` ended with {status}");
    Ok(())
}

/// Ends the node as an operator would, and sees that it obeys.
fn terminate(node: &mut Child) -> Result<()> {
    let id = i32::try_from(node.id()).ok().and_then(rustix::process::Pid::from_raw).context("a process id")?;
    rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
    let status = node.wait()?;
    ensure!(status.success(), "after SIGTERM the node ended with {status}");
    Ok(())
}
