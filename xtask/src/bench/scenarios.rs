// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is compared with what.

use super::backend::Sample;
use super::policy::Shape;

/// A comparison of two sides under the same load.
pub(super) struct Scenario {
    pub(super) name: &'static str,
    /// What `shunt bench pvp` is told, besides the sockets.
    pub(super) load: &'static [&'static str],
    pub(super) metric: Metric,
    pub(super) sides: [Side; 2],
    /// Pairs of runs, where nobody says how many.
    pub(super) pairs: usize,
}

impl Scenario {
    /// How many flows the generator is told to send.
    pub(super) fn flows(&self) -> u32 {
        let mut words = self.load.iter().skip_while(|word| **word != "--flows").skip(1);
        words.next().and_then(|number| number.parse().ok()).unwrap_or(1)
    }
}

/// A backend under test.
pub(super) struct Side {
    pub(super) label: &'static str,
    pub(super) kind: Kind,
    /// Words for the generator that hold for this side only.
    pub(super) extra: &'static [&'static str],
}

/// Which backend.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Our node, two ports wired together.
    Wired,
    /// Our node, two ports on the bridge.
    Bridged,
    /// Our node, two ports on the bridge, each with a policy of this shape.
    Policy(Shape),
    /// DPDK's vhost library, two ports wired together, no switching.
    Testpmd,
    /// OVS-DPDK with port-to-port flows.
    Ovs,
    /// Our node in the generator's own process, with four CNFs.
    Scene,
    /// Two of our nodes in the generator's own process, with an uplink between them on a veth pair of this MTU, and four CNFs.
    Uplink(u32),
    /// DPDK's vhost library with four CNFs, each that sends wired to one that receives.
    TestpmdScene,
    /// OVS-DPDK with four CNFs: connection tracking, then forwarding by MAC address, learning.
    OvsScene,
    /// OVS-DPDK with connection tracking and a table for each layer of a policy of this shape.
    OvsTables(Shape),
}

impl Kind {
    /// Names of its ports; in a scene those that send come first.
    pub(super) const fn ports(self) -> &'static [&'static str] {
        match self {
            Self::Wired | Self::Bridged | Self::Policy(_) | Self::Testpmd | Self::Ovs | Self::OvsTables(_) => {
                &["a", "b"]
            }
            Self::Scene | Self::Uplink(_) | Self::TestpmdScene | Self::OvsScene => &["a", "b", "c", "d"],
        }
    }
}

/// What a run is judged by; larger is better except for latencies, whose ratio is turned round.
#[derive(Clone, Copy)]
pub(super) enum Metric {
    Rate,
    P50,
    P99,
}

impl Metric {
    pub(super) fn of(self, sample: &Sample) -> f64 {
        match self {
            Self::Rate => sample.pps,
            Self::P50 => sample.p50,
            Self::P99 => sample.p99,
        }
    }

    pub(super) fn unit(self) -> &'static str {
        match self {
            Self::Rate => "Mpps",
            Self::P50 => "p50, µs (less is better)",
            Self::P99 => "p99, µs (less is better)",
        }
    }

    pub(super) fn show(self, value: f64) -> String {
        match self {
            Self::Rate => format!("{:.2}", value / 1e6),
            Self::P50 | Self::P99 => format!("{:.1}", value / 1e3),
        }
    }
}

const fn side(label: &'static str, kind: Kind) -> Side {
    Side { label, kind, extra: &[] }
}

const WIRED: Side = side("shunt", Kind::Wired);
const BRIDGED: Side = side("shunt bridge", Kind::Bridged);
const TESTPMD: Side = side("net_vhost", Kind::Testpmd);
const OVS: Side = side("OVS-DPDK", Kind::Ovs);
const SPLIT: Side = Side { label: "shunt split", kind: Kind::Wired, extra: &["--ring", "split"] };

/// The policy that others are measured against: as many layers as OVS has tables.
const SHAPE: Shape = Shape { layers: 10, rules: 200, groups: 1, stateful: 2 };
const POLICY: Side = side("shunt policy", Kind::Policy(SHAPE));
const OVS_TABLES: Side = side("OVS-DPDK tables", Kind::OvsTables(SHAPE));

/// A policy of another size, stateful as far as its layers go.
const fn policy(label: &'static str, shape: Shape, layers: u32, rules: u32) -> Side {
    let stateful = if shape.stateful < layers { shape.stateful } else { layers };
    side(label, Kind::Policy(Shape { layers, rules, stateful, ..shape }))
}

/// Plain frames and aggregates, in a scene.
const PLAIN: Side = side("plain", Kind::Scene);
const AGGREGATED: Side = Side { label: "aggregates", kind: Kind::Scene, extra: &["--aggregate"] };
const UPLINK: &[&str] = &["--scene", "uplink", "--flows", "1000", "--run-length", "8"];
const UPLINK_IMIX: &[&str] = &["--scene", "uplink", "--imix", "--flows", "1000", "--run-length", "8"];
const RUNS_1: &[&str] = &["--scene", "bridge", "--flows", "1000", "--run-length", "1"];
const RUNS_2: &[&str] = &["--scene", "bridge", "--flows", "1000", "--run-length", "2"];
const RUNS_4: &[&str] = &["--scene", "bridge", "--flows", "1000", "--run-length", "4"];
const RUNS_8: &[&str] = &["--scene", "bridge", "--flows", "1000", "--run-length", "8"];
const RUNS_16: &[&str] = &["--scene", "bridge", "--flows", "1000", "--run-length", "16"];
/// Aggregates beside what moves plain frames of the same size in as many flows.
const FLOWS_1000: &[&str] = &["--size", "64", "--flows", "1000"];
const SCENE: Side =
    Side { label: "aggregates", kind: Kind::Scene, extra: &["--scene", "bridge", "--run-length", "8", "--aggregate"] };
const WIRED_CNFS: &[&str] = &["--scene", "crossconnect", "--run-length", "8"];
const TESTPMD_SCENE: Side = Side { label: "net_vhost, 4 CNFs", kind: Kind::TestpmdScene, extra: WIRED_CNFS };
const BRIDGED_CNFS: &[&str] = &["--scene", "bridge", "--run-length", "8"];
const OVS_SCENE: Side = Side { label: "OVS-DPDK, 4 CNFs", kind: Kind::OvsScene, extra: BRIDGED_CNFS };
/// One per cent of what goes plain, for both: a share of what goes in aggregates would be more.
const IDLE: &[&str] = &["--scene", "bridge", "--flows", "1000", "--rate", "80000"];
const CROSSED: &[&str] = &["--scene", "crossconnect", "--flows", "1000", "--run-length", "8"];

const UDP: &[&str] = &["--size", "64", "--flows", "10000"];
const TCP: &[&str] = &["--size", "64", "--flows", "10000", "--tcp"];
const SMALL: &[&str] = &["--size", "64", "--flows", "1"];
const LARGE: &[&str] = &["--size", "1518", "--flows", "1"];
/// The longest frames that OVS takes: its ports' MTU ends at some 9,700 bytes.
const JUMBO: &[&str] = &["--size", "9014", "--mergeable", "--queue-size", "1024", "--flows", "1"];
const HUGE: &[&str] = &["--size", "65536", "--mergeable", "--queue-size", "1024", "--flows", "1"];
const LIGHT: &[&str] = &["--size", "64", "--load", "10%"];

const fn rate(name: &'static str, load: &'static [&'static str], sides: [Side; 2]) -> Scenario {
    Scenario { name, load, metric: Metric::Rate, sides, pairs: 7 }
}

/// Aggregates and plain frames on the same interface.
const fn uplink(mtu: u32) -> [Side; 2] {
    let kind = Kind::Uplink(mtu);
    [Side { label: "aggregates", kind, extra: &["--aggregate"] }, side("plain", kind)]
}

/// One that is to show that there is no difference, or how small it is.
const fn claim(name: &'static str, load: &'static [&'static str], sides: [Side; 2]) -> Scenario {
    Scenario { pairs: 15, ..rate(name, load, sides) }
}

const fn latency(name: &'static str, metric: Metric, sides: [Side; 2]) -> Scenario {
    Scenario { metric, ..rate(name, LIGHT, sides) }
}

/// All comparisons; `docs/performance.md` has their figures.
pub(super) const SCENARIOS: &[Scenario] = &[
    rate("64-packed-net_vhost", SMALL, [WIRED, TESTPMD]),
    rate("64-packed-ovs", SMALL, [WIRED, OVS]),
    rate("64-packed-split", SMALL, [WIRED, SPLIT]),
    rate("64-split-net_vhost", &["--size", "64", "--flows", "1", "--ring", "split"], [WIRED, TESTPMD]),
    rate("64-wired-bridge", SMALL, [BRIDGED, WIRED]),
    rate("1518-net_vhost", LARGE, [WIRED, TESTPMD]),
    rate("1518-ovs", LARGE, [WIRED, OVS]),
    rate("64k-net_vhost", HUGE, [WIRED, TESTPMD]),
    rate("9014-ovs", JUMBO, [WIRED, OVS]),
    latency("latency-p50-net_vhost", Metric::P50, [WIRED, TESTPMD]),
    latency("latency-p99-net_vhost", Metric::P99, [WIRED, TESTPMD]),
    claim("policy-bridge-udp", UDP, [POLICY, BRIDGED]),
    claim("policy-bridge-tcp", TCP, [POLICY, BRIDGED]),
    claim("policy-layers-20-1", UDP, [policy("shunt 20 layers", SHAPE, 20, 200), policy("1 layer", SHAPE, 1, 200)]),
    claim("policy-rules-50k-1", UDP, [policy("shunt 50 k rules", SHAPE, 1, 50_000), policy("1 rule", SHAPE, 1, 1)]),
    claim("policy-ovs-udp", UDP, [POLICY, OVS_TABLES]),
    claim("policy-ovs-tcp", TCP, [POLICY, OVS_TABLES]),
    claim("aggregate-runs-1", RUNS_1, [AGGREGATED, PLAIN]),
    claim("aggregate-runs-2", RUNS_2, [AGGREGATED, PLAIN]),
    claim("aggregate-runs-4", RUNS_4, [AGGREGATED, PLAIN]),
    claim("aggregate-runs-8", RUNS_8, [AGGREGATED, PLAIN]),
    claim("aggregate-runs-16", RUNS_16, [AGGREGATED, PLAIN]),
    claim("aggregate-net_vhost-ports", FLOWS_1000, [SCENE, TESTPMD]),
    claim("aggregate-net_vhost-scene", FLOWS_1000, [SCENE, TESTPMD_SCENE]),
    claim("aggregate-ovs-ports", FLOWS_1000, [SCENE, OVS]),
    claim("aggregate-ovs-scene", FLOWS_1000, [SCENE, OVS_SCENE]),
    claim("aggregate-uplink-1500", UPLINK, uplink(1500)),
    claim("aggregate-uplink-9000", UPLINK, uplink(9000)),
    claim("aggregate-uplink-imix-1500", UPLINK_IMIX, uplink(1500)),
    claim("aggregate-uplink-imix-9000", UPLINK_IMIX, uplink(9000)),
    claim("aggregate-crossconnect", CROSSED, [AGGREGATED, PLAIN]),
    Scenario { metric: Metric::P99, ..claim("aggregate-idle", IDLE, [AGGREGATED, PLAIN]) },
    rate("bridge-ovs-tables-udp", UDP, [BRIDGED, OVS_TABLES]),
    rate("bridge-ovs-tables-tcp", TCP, [BRIDGED, OVS_TABLES]),
];
