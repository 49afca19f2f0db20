// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The SDK's examples at a real node: kernel TCP crosses a chain of three forwarders, of which two hold a tap device, and
//! generated packets come back intact; also while the node dies and is started again.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::cnf::{example, examples};
use harness::netns::NetNs;
use harness::node::{Node, NodeConfig};
use harness::process::Process;
use harness::scenario::{self, WorkDir};
use harness::transfer::{self, hash};
use harness::wait::wait_until;

const SOON: Duration = Duration::from_secs(30);
const MIB: u64 = 24;
const ADDRESSES: [&str; 2] = ["10.9.1.1", "10.9.1.2"];

/// Two network namespaces, joined by three forwarders and two wires of a node:
///
/// ```text
/// kernel ── tap a ── l2fwd ── node ── l2fwd ── node ── l2fwd ── tap b ── kernel
/// ```
struct Chain {
    spaces: [NetNs; 2],
    forwarders: Vec<Process>,
    node: Node,
}

impl Chain {
    fn start(work: &WorkDir, options: &[&str]) -> Result<Self> {
        // Before the node, which would wait for as long as building takes.
        examples()?;
        let mut config = NodeConfig::bridge(&["p0", "p1", "p2", "p3"]);
        config.crossconnects = vec![["p0", "p1"].map(str::to_owned), ["p2", "p3"].map(str::to_owned)];
        let node = Node::start(work, &config)?;
        let spaces = [NetNs::create("cnf-a")?, NetNs::create("cnf-b")?];
        let socket = |port: &str| node.socket(port).display().to_string();
        let mut forwarders = Vec::new();
        for (name, space, ends) in [
            ("left", Some(&spaces[0]), ["tap:shunt0".to_owned(), socket("p0")]),
            ("middle", None, [socket("p1"), socket("p2")]),
            ("right", Some(&spaces[1]), [socket("p3"), "tap:shunt0".to_owned()]),
        ] {
            let args: Vec<&str> = ends.iter().map(String::as_str).chain(options.iter().copied()).collect();
            let argv = example("l2fwd", &args)?;
            let argv = match space {
                Some(space) => [space.command(&[]), argv].concat(),
                None => argv,
            };
            forwarders.push(Process::spawn(work, name, &argv)?);
        }
        for (space, address) in spaces.iter().zip(ADDRESSES) {
            wait_until("the tap device", SOON, || Ok(space.ip("link show shunt0").is_ok()))?;
            space.ip(&format!("addr add {address}/24 dev shunt0"))?;
        }
        node.wait_up(&["p0", "p1", "p2", "p3"])?;
        let mut chain = Self { spaces, forwarders, node };
        if options.contains(&"--aggregate") {
            chain.wait_agreed(1)?;
        }
        Ok(chain)
    }

    /// Waits until the ends of both wires have agreed on aggregation so many times.
    fn wait_agreed(&mut self, times: usize) -> Result<()> {
        for (forwarder, links) in self.forwarders.iter_mut().zip([1, 2, 1]) {
            let wanted = links * times;
            let agreed = |text: &str| (text.matches(": aggregating with").count() >= wanted).then_some(());
            forwarder.wait_printed(0, "that it aggregates", SOON, agreed)?;
        }
        Ok(())
    }

    /// Sends random bytes from one side to the other and compares the hashes; `meanwhile` happens when it is under way.
    fn transfer(
        &mut self,
        work: &WorkDir,
        from: usize,
        meanwhile: impl FnOnce(&mut Node, &Path) -> Result<()>,
    ) -> Result<()> {
        let (here, there) = (&self.spaces[from], &self.spaces[1 - from]);
        let names = ["sent", "hold", "received"].map(|name| work.file(&format!("{name}-{from}")));
        let [sent, hold, received] = &names;
        there.sh(&format!("mkfifo {}", hold.display()))?;
        let listen = format!("busybox nc -l -p 5001 <>{} >{}", hold.display(), received.display());
        let mut receiver = there.spawn(work, &format!("receiver-{from}"), &["sh", "-c", &listen])?;
        here.sh(&format!("dd if=/dev/urandom of={} bs=1M count={MIB} status=none", sent.display()))?;
        let to = ADDRESSES[1 - from];
        let send = format!("until busybox nc {to} 5001 < {}; do sleep 0.1; done", sent.display());
        let mut sender = here.spawn(work, &format!("sender-{from}"), &["sh", "-c", &send])?;
        meanwhile(&mut self.node, received)?;
        ensure!(sender.wait_exit(transfer::LIMIT)?.success(), "the sender failed");
        receiver.wait_exit(transfer::LIMIT)?;
        let sum = |file: &Path| here.sh(&format!("sha256sum < {}", file.display()));
        let (sent, received) = (sum(sent)?, sum(received)?);
        ensure!(hash(&sent).is_some() && hash(&sent) == hash(&received), "sent {sent}, received {received}");
        Ok(())
    }

    /// Ends it; every forwarder must end well and have forwarded, aggregates if it could.
    fn end(mut self, aggregates: bool) -> Result<()> {
        for forwarder in &mut self.forwarders {
            ensure!(forwarder.terminate()?.success(), "{} ended badly", forwarder.name());
            let text = forwarder.printed_since(0)?;
            let moved = text.lines().filter(|line| line.contains(" received, ")).count();
            ensure!(moved == 2 && !text.contains(" 0 sent"), "{}: {text}", forwarder.name());
            ensure!(aggregates != text.contains(" 0 in aggregates"), "{}: {text}", forwarder.name());
        }
        self.node.terminate()
    }
}

fn undisturbed(_: &mut Node, _: &Path) -> Result<()> {
    Ok(())
}

#[test]
fn kernel_tcp_crosses_forwarders() {
    for options in [&["--busy"][..], &["--split"][..], &["--aggregate"][..]] {
        scenario::run(|work| {
            let mut chain = Chain::start(work, options)?;
            chain.transfer(work, 0, undisturbed).context("there")?;
            chain.transfer(work, 1, undisturbed).context("back")?;
            chain.end(options.contains(&"--aggregate"))
        });
    }
}

/// The node is killed in the middle of a transfer and started again: the forwarders attach again, and TCP sends again
/// what was lost. What was agreed on with the other end of a wire is agreed on anew.
#[test]
fn forwarders_outlive_their_node() {
    for options in [&[][..], &["--aggregate"][..]] {
        outlive(options);
    }
}

fn outlive(options: &[&str]) {
    let aggregates = options.contains(&"--aggregate");
    scenario::run(|work| {
        let mut chain = Chain::start(work, options)?;
        chain.transfer(work, 0, |node, received| {
            let goal = MIB << 20 >> 2;
            wait_until("a part of the transfer", transfer::LIMIT, || {
                Ok(fs::metadata(received).is_ok_and(|file| file.len() > goal))
            })?;
            node.kill()?;
            node.start_again(work)?;
            node.wait_up(&["p0", "p1", "p2", "p3"])
        })?;
        for forwarder in &chain.forwarders {
            let text = forwarder.printed_since(0)?;
            ensure!(text.matches(": attached").count() >= 2, "{}: {text}", forwarder.name());
        }
        if aggregates {
            chain.wait_agreed(2)?;
            chain.transfer(work, 1, undisturbed)?;
        }
        chain.end(aggregates)
    });
}

#[test]
fn generated_packets_come_back() {
    let with_two_queues = ["--ring-size", "1000", "--queues", "2"];
    for options in [&[][..], &["--busy", "--split"][..], &with_two_queues[..], &["--aggregate"][..]] {
        scenario::run(|work| {
            let mut config = NodeConfig::bridge(&["gen", "echo"]);
            config.ports.iter_mut().for_each(|port| port.queues = 2);
            let mut node = Node::start(work, &config)?;
            let with =
                |name: &str, args: &[&str]| -> Result<Vec<OsString>> { example(name, &[args, options].concat()) };
            let sockets = ["gen", "echo"].map(|port| node.socket(port).display().to_string());
            let mut echo = Process::spawn(work, "echo", &with("echo", &[&sockets[1]])?)?;
            node.wait_up(&["echo"])?;
            let args = [&sockets[0], "--sizes", "60,64,1514,22,577", "--count", "200000"];
            let mut generator = Process::spawn(work, "pktgen", &with("pktgen", &args)?)?;
            ensure!(generator.wait_exit(transfer::LIMIT)?.success(), "{}", generator.printed_since(0)?);
            let text = generator.printed_since(0)?;
            ensure!(text.contains("200000 packets verified"), "{text}");
            // At a rate of its own choice: two seconds' worth.
            let args = [&sockets[0], "--rate", "2000", "--count", "4000"];
            let mut generator = Process::spawn(work, "paced", &with("pktgen", &args)?)?;
            ensure!(generator.wait_exit(transfer::LIMIT)?.success(), "{}", generator.printed_since(0)?);
            let text = generator.printed_since(0)?;
            let words: Vec<&str> = text.split_whitespace().collect();
            let rate = words.iter().position(|word| *word == "packets/s,").and_then(|at| words[at - 1].parse().ok());
            ensure!(rate.is_some_and(|rate: f64| rate < 2100.0), "{text}");
            ensure!(echo.terminate()?.success(), "the echo ended badly");
            let text = echo.printed_since(0)?;
            ensure!(text.contains("0 lost"), "{text}");
            node.terminate()
        });
    }
}
