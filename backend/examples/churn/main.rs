// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a change of policy costs while packets flow: `cargo run --release -p shunt-backend --example churn [rounds] [connections]`.
//!
//! A node with one busy worker on CPU 0; all else is on CPU 1: its other threads, a controller, and two guests that talk all
//! the time on UDP connections through the policy of both their ports, five layers at the client's. The controller speaks to
//! the node as any does, on its socket. In each round:
//!
//! * it replaces a group of 50,000 rules at a port of the worker that has no flows, then the same at the client's port, where
//!   every connection met one of them. Measured are the time from the request to the first packet that only the new rules let
//!   through, and the worker's longest turn, as it counts that itself, against that in the seconds before;
//! * it replaces the one rule of a group that all connections met. Measured is, in slices of 50 ms, when the guests have 90 % of
//!   their rate of the second before.
//!
//! After each change it is asserted that every connection was planned again and every flow of answers was looked at, that no
//! connection ended and no packet was lost.

#[path = "../../tests/support/mod.rs"]
mod support;

mod policy;
mod traffic;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use backend::config::{ControllerConfig, Name, PollMode};
use backend::control::ControlServer;
use backend::policy::PolicyStore;
use policy::{CONTROLLER, Client, RULES, common_group, large_group};
use rustix::thread::{CpuSet, Pid, sched_setaffinity};
use support::{BROADCAST, Guest, NodeSpec, TestNode, until};
use switch::engine::PortReport;
use traffic::{MACS, SLICE, Talk, Traffic};

/// How far back the worker's longest turn reaches at most.
const LATELY: Duration = Duration::from_millis(2100);

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u32>().expect("a number"));
    let (rounds, connections) = (arguments.next().unwrap_or(5), arguments.next().unwrap_or(50_000));
    let spec = NodeSpec::new().workers(1, PollMode::Busy).pinned(0, 0);
    let node = spec.port_on("a", 0).port_on("b", 0).port_on("other", 0).start();
    let store = Arc::new(PolicyStore::new(Arc::new(node.handle())));
    let uid = Some(rustix::process::geteuid().as_raw());
    let name = Name::new(CONTROLLER).expect("a name");
    let controllers = [ControllerConfig { name, uid, token_file: None, order: [0, 100] }];
    let control = &node.config.control;
    let _server = ControlServer::start(control, &controllers, Arc::new(node.handle()), store).expect("the API");
    let client = Client { socket: control.socket.as_path().to_owned() };
    leave_the_worker_alone();

    let mut guests = ["a", "b"].map(|name| Guest::attach(node.socket(name)));
    for (from, mac) in MACS.into_iter().enumerate() {
        guests[from].send(&[support::frame(BROADCAST, mac, 60, 1)]);
        assert_eq!(guests[1 - from].receive(1).len(), 1);
    }
    client.make_large("a");
    client.make_large("other");
    client.make_server("b");

    let talk = Talk::new();
    let mut traffic = Traffic::new(guests, connections);
    traffic.open(&talk);
    let bench = Bench { node, client, talk, connections: u64::from(connections) };
    bench.check_open();
    println!("{connections} connections, groups of {RULES} rules, {rounds} rounds");
    let measured = thread::scope(|scope| {
        scope.spawn(|| {
            // In Linux of this thread alone: the guests give way to the node on their CPU, as they would on CPUs of their own.
            rustix::process::setpriority_process(None, 19).expect("a lower priority");
            traffic.run(&bench.talk);
        });
        let measured = bench.measure(rounds);
        bench.talk.stop();
        measured
    });
    bench.check_losses();
    measured.print();
}

/// Puts all threads but the worker on CPU 1; those that begin later are there, too.
fn leave_the_worker_alone() {
    let mut others = CpuSet::new();
    others.set(1);
    for task in std::fs::read_dir("/proc/self/task").expect("threads") {
        let task = task.expect("a thread");
        let name = std::fs::read_to_string(task.path().join("comm")).expect("its name");
        if !name.starts_with("worker") {
            let id = task.file_name().into_string().expect("a number").parse().expect("a number");
            sched_setaffinity(Pid::from_raw(id), &others).expect("CPU 1");
        }
    }
}

struct Bench {
    node: TestNode,
    client: Client,
    talk: Talk,
    connections: u64,
}

/// A figure of each round.
#[derive(Default)]
struct Measured {
    rate_mpps: Vec<f64>,
    first_packet_ms: Vec<f64>,
    answer_ms: Vec<f64>,
    answer_other_ms: Vec<f64>,
    longest_idle_us: Vec<f64>,
    longest_other_us: Vec<f64>,
    longest_us: Vec<f64>,
    settled_ms: Vec<f64>,
    recovered_ms: Vec<f64>,
    least_rate: Vec<f64>,
}

impl Bench {
    fn measure(&self, rounds: u32) -> Measured {
        let mut measured = Measured::default();
        for generation in 1..=rounds {
            let (large, common) = (large_group(generation), common_group(generation));
            thread::sleep(LATELY);
            measured.longest_idle_us.push(self.longest_turn_us());
            measured.answer_other_ms.push(ms(self.client.put_group("other", "acl", &large)));
            measured.longest_other_us.push(self.longest_turn_us());

            thread::sleep(LATELY);
            let before = self.report("a");
            self.probe_is_blocked(generation);
            let begin = self.talk.now();
            measured.answer_ms.push(ms(self.client.put_group("a", "acl", &large)));
            let arrived = until("a packet that the new rules let through", || self.talk.arrived());
            measured.longest_us.push(self.longest_turn_us());
            assert!(arrived > begin, "it arrived before it was allowed");
            measured.first_packet_ms.push(ms(arrived - begin));
            self.settle(before);

            thread::sleep(Duration::from_secs(1));
            let before = self.report("a");
            let begin = self.talk.now();
            self.client.put_group("a", "net", &common);
            let changed = self.talk.now();
            self.settle(before);
            measured.settled_ms.push(ms(self.talk.now() - begin));
            thread::sleep(Duration::from_millis(1500));
            let after = self.report("a");
            let stats = [before.stats, after.stats];
            assert_eq!(stats[1].misses, stats[0].misses, "nobody began anew");
            self.recovery(begin, changed, &mut measured);
        }
        measured
    }

    /// The probe of a generation is sent, and dropped.
    fn probe_is_blocked(&self, generation: u32) {
        let dropped = self.node.drops("a", "policy_default");
        self.talk.want(generation);
        until("a probe is dropped", || (self.node.drops("a", "policy_default") > dropped).then_some(()));
        assert_eq!(self.talk.arrived(), None, "the rules before do not let it through");
    }

    /// Waits until every flow was found right or planned again since `before`.
    fn settle(&self, before: PortReport) {
        let report = until("all flows have been looked at", || {
            thread::sleep(Duration::from_millis(5));
            let report = self.report("a");
            let [replanned, revalidated] =
                [report.stats.replanned - before.stats.replanned, report.stats.revalidated - before.stats.revalidated];
            (replanned >= self.connections && revalidated >= self.connections).then_some(report)
        });
        assert_eq!(report.stats.ended_by_policy, 0, "{report:?}");
        // Connections, and at most some probes.
        assert!(report.connections >= self.connections && report.stats.confirmed >= 2 * self.connections, "{report:?}");
    }

    /// When the guests had 90 % of their rate again.
    fn recovery(&self, begin: Duration, changed: Duration, measured: &mut Measured) {
        let slices = self.talk.slices();
        let second = |(end, _): &&(Duration, u64)| *end < begin && *end + Duration::from_secs(1) > begin;
        let rates: Vec<f64> = slices.iter().filter(second).map(|(_, count)| *count as f64).collect();
        let usual = quantile(&rates, 0.5);
        // From the slice on in which the change came.
        let after: Vec<_> = slices.iter().filter(|(end, _)| *end > changed).collect();
        let recovered = after.iter().find(|(_, count)| *count as f64 >= 0.9 * usual);
        let recovered = recovered.map_or(f64::INFINITY, |(end, _)| ms(*end - begin));
        let least = after.iter().take(20).map(|(_, count)| *count as f64 / usual).fold(f64::INFINITY, f64::min);
        measured.rate_mpps.push(usual / SLICE.as_secs_f64() / 1e6);
        measured.recovered_ms.push(recovered);
        measured.least_rate.push(least);
    }

    fn check_open(&self) {
        for port in ["a", "b"] {
            let report = self.report(port);
            let stats = report.stats;
            assert_eq!(
                (report.connections, report.flows),
                (self.connections, 2 * self.connections),
                "{port}: {report:?}"
            );
            assert_eq!((stats.confirmed, stats.evicted, stats.over_budget), (2 * self.connections, 0, 0), "{port}");
        }
    }

    /// All that was lost are probes that no rule let through yet.
    fn check_losses(&self) {
        let talk = &self.talk;
        assert_eq!(talk.lost.load(Relaxed), 0, "frames of connections were lost");
        let [sent, arrived] = [0, 1].map(|at| talk.probes[at].load(Relaxed));
        for (port, expected) in [("a", sent - arrived), ("b", 0)] {
            let drops = self.node.status(port).drops;
            assert_eq!(drops.values().sum::<u64>(), expected, "{port}: {drops:?}");
        }
        assert_eq!(self.node.drops("a", "policy_default"), sent - arrived);
        let (delivered, b) = (talk.delivered.load(Relaxed), self.report("b"));
        println!("{delivered} frames delivered, none lost; {sent} probes, {arrived} let through");
        assert_eq!((b.stats.replanned, b.stats.ended_by_policy), (0, 0), "the policy of b did not change");
    }

    fn report(&self, port: &str) -> PortReport {
        let report = self.node.handle().ask_engine(port, |engine, port, _| engine.report(port));
        report.expect("node").expect("port").expect("policy")
    }

    fn longest_turn_us(&self) -> f64 {
        let cycles = self.node.stats().workers[0].longest_turn_cycles;
        backend::sys::Clock::get().to_nanos(cycles) as f64 / 1000.0
    }
}

impl Measured {
    fn print(&self) {
        let line = |what: &str, unit: &str, values: &[f64]| {
            let [least, median, most] = [0.0, 0.5, 1.0].map(|at| quantile(values, at));
            println!("{what}: median {median:.2} {unit} ({least:.2} to {most:.2})");
        };
        line("rate of both guests", "Mpps", &self.rate_mpps);
        line("50 k rules, from the request to the first packet", "ms", &self.first_packet_ms);
        line("50 k rules, from the request to the answer", "ms", &self.answer_ms);
        line("the same at a port without flows", "ms", &self.answer_other_ms);
        line("longest turn without a change", "us", &self.longest_idle_us);
        line("longest turn, 50 k rules at a port without flows", "us", &self.longest_other_us);
        line("longest turn, 50 k rules that all connections met", "us", &self.longest_us);
        let above: Vec<f64> =
            self.longest_other_us.iter().zip(&self.longest_idle_us).map(|(with, without)| with - without).collect();
        line("difference within rounds, port without flows", "us", &above);
        line("a rule that all flows met: all are looked at again after", "ms", &self.settled_ms);
        line("90 % of the rate after", "ms", &self.recovered_ms);
        line("the least slice in the second after", "of the rate", &self.least_rate);
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn quantile(values: &[f64], at: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let below = |(rank, _): &(usize, &f64)| *rank as f64 >= (sorted.len() as f64 - 1.0) * at - 0.5;
    sorted.iter().enumerate().find(below).map_or(f64::NAN, |(_, value)| *value)
}
