// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What is compared with what.

use super::backend::Sample;

/// A comparison of two sides under the same load.
pub(super) struct Scenario {
    pub(super) name: &'static str,
    /// What `shunt bench pvp` is told, besides the sockets.
    pub(super) load: &'static [&'static str],
    pub(super) metric: Metric,
    pub(super) sides: [Side; 2],
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
    /// DPDK's vhost library, two ports wired together, no switching.
    Testpmd,
    /// OVS-DPDK with port-to-port flows.
    Ovs,
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
            Self::Rate => "Mpps, both directions",
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

const SMALL: &[&str] = &["--size", "64", "--flows", "1"];
const LARGE: &[&str] = &["--size", "1518", "--flows", "1"];
/// The longest frames that OVS takes: its ports' MTU ends at some 9,700 bytes.
const JUMBO: &[&str] = &["--size", "9014", "--mergeable", "--queue-size", "1024", "--flows", "1"];
const HUGE: &[&str] = &["--size", "65536", "--mergeable", "--queue-size", "1024", "--flows", "1"];
const LIGHT: &[&str] = &["--size", "64", "--load", "10%"];

const fn rate(name: &'static str, load: &'static [&'static str], sides: [Side; 2]) -> Scenario {
    Scenario { name, load, metric: Metric::Rate, sides }
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
    Scenario { name: "latency-p50-net_vhost", load: LIGHT, metric: Metric::P50, sides: [WIRED, TESTPMD] },
    Scenario { name: "latency-p99-net_vhost", load: LIGHT, metric: Metric::P99, sides: [WIRED, TESTPMD] },
];
