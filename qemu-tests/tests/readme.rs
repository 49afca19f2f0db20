// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Every command that README.md shows is run, in its order. A command that this test does not know fails it, so that none
//! can be added without being run.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use harness::guest;
use harness::node;
use harness::process::{self, Process};
use harness::scenario::{self, WorkDir};
use harness::wait::wait_until;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The commands in all `sh` blocks, continued lines joined, split into words.
fn commands(readme: &str) -> Vec<Vec<String>> {
    let blocks = readme.split("```sh\n").skip(1).filter_map(|rest| Some(rest.split_once("```")?.0));
    let joined = blocks.map(|block| block.replace("\\\n", " "));
    let lines = joined.flat_map(|block| block.lines().map(str::to_owned).collect::<Vec<_>>());
    lines.filter(|line| !line.trim().is_empty()).map(|l| l.split_whitespace().map(str::to_owned).collect()).collect()
}

/// What stays running from one command to the next.
struct Session<'a> {
    work: &'a WorkDir,
    node: Option<Process>,
}

impl Session<'_> {
    fn run(&mut self, words: &[String]) -> Result<()> {
        let text: Vec<&str> = words.iter().map(String::as_str).collect();
        match text.as_slice() {
            ["cargo", "xtask", "test"] => Ok(()), // this is it
            ["cargo", "build", "--release"] | ["cargo", "run", "--release", "--", "demo" | "bench", ..] => {
                self.cargo(&text[1..])
            }
            ["./target/release/shunt", rest @ ..] => self.daemon(rest),
            ["qemu-system-x86_64", rest @ ..] => self.qemu(rest),
            ["dpdk-testpmd", ..] => self.testpmd(&text),
            _ => bail!("README.md shows a command that no test runs"),
        }
    }

    fn cargo(&self, words: &[&str]) -> Result<()> {
        let manifest = root().join("Cargo.toml").display().to_string();
        let target = node::target_dir()?.display().to_string();
        let (subcommand, rest) = words.split_first().context("no subcommand")?;
        let mut argv = vec!["cargo", subcommand, "--quiet", "--manifest-path", &manifest, "--target-dir", &target];
        argv.extend(rest);
        let mut child = Process::spawn(self.work, "cargo", &argv)?;
        let status = child.wait_exit(Duration::from_secs(600))?;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }

    fn daemon(&mut self, rest: &[&str]) -> Result<()> {
        let binary = node::binary()?.display().to_string();
        let mut argv = vec![binary];
        for word in rest {
            let file = root().join(word); // paths are those of someone who stands in the repository
            argv.push(if file.is_file() { file.display().to_string() } else { (*word).to_owned() });
        }
        self.node = Some(Process::spawn(self.work, "node", &argv)?);
        wait_until("the node to answer", SOON, || Ok(stats().is_ok()))
    }

    fn qemu(&self, rest: &[&str]) -> Result<()> {
        let mut argv = vec!["qemu-system-x86_64".to_owned()];
        for word in rest {
            match *word {
                "…" => argv.extend(guest::machine(self.work, "1G", "10.9.0.250", &[])?),
                word => argv.push(word.to_owned()),
            }
        }
        let mut guest = Process::spawn(self.work, "guest", &argv)?;
        self.somebody_is_up(&mut guest)
    }

    fn testpmd(&self, words: &[&str]) -> Result<()> {
        let mut guest = Process::spawn(self.work, "testpmd", &[&["stdbuf", "-oL"], words].concat())?;
        self.somebody_is_up(&mut guest)
    }

    /// Waits until a port has a guest on packed rings, then takes the guest away.
    fn somebody_is_up(&self, guest: &mut Process) -> Result<()> {
        wait_until("a port to be up", SOON, || {
            ensure!(guest.is_running(), "{} ended", guest.name());
            let stats = stats()?;
            Ok(stats.ports.iter().any(|p| p.state == "up" && p.ring.as_deref() == Some("packed")))
        })?;
        guest.kill()?;
        wait_until("the port to be free", SOON, || Ok(stats()?.ports.iter().all(|p| p.state != "up")))
    }
}

/// What `demo --json` prints is a contract.
#[test]
fn the_demos_json_is_as_promised() {
    scenario::run(|_| {
        let demo =
            [node::binary()?.as_os_str(), "demo".as_ref(), "--seconds".as_ref(), "2".as_ref(), "--json".as_ref()];
        let report: Value = serde_json::from_str(&process::run(&demo)?)?;
        for key in ["seconds", "forwarded", "verified", "corrupted", "lost", "ports"] {
            ensure!(!report[key].is_null(), "no {key:?} in {report}");
        }
        ensure!(report["corrupted"] == 0 && report["lost"] == 0, "packets were lost or corrupted: {report}");
        ensure!(report["verified"].as_u64() > Some(0), "nothing was verified: {report}");
        let ports = report["ports"].as_array().context("ports are no list")?;
        for port in ports {
            for key in ["name", "ring", "features", "rx_packets", "tx_packets", "drops"] {
                ensure!(!port[key].is_null(), "no {key:?} in {port}");
            }
            ensure!(port["ring"] == "packed", "a port without packed rings: {port}");
        }
        ensure!(ports.len() == 2, "{} ports", ports.len());
        Ok(())
    });
}

/// What the node says at its default socket.
fn stats() -> Result<node::Stats> {
    let text = process::run(&[node::binary()?.as_os_str(), "stats".as_ref(), "--json".as_ref()])?;
    Ok(serde_json::from_str(&text)?)
}

#[test]
fn every_command_of_the_readme_works() {
    scenario::run(|work| {
        let readme = fs::read_to_string(root().join("README.md")).context("README.md")?;
        let commands = commands(&readme);
        ensure!(commands.len() >= 6, "too few commands were found: {commands:?}");
        let mut session = Session { work, node: None };
        for words in &commands {
            eprintln!("$ {}", words.join(" "));
            session.run(words).with_context(|| format!("'{}'", words.join(" ")))?;
        }
        let mut node = session.node.context("README.md starts no node")?;
        ensure!(node.terminate()?.success(), "the node did not end well");
        Ok(())
    });
}
