// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! One run: `shunt bench pvp` as the generator, on core 1, against a backend on core 0.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Options, ovs, testpmd};
use crate::command::{output, program};

/// What is measured. Peers take core 0, as our node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backend {
    Shunt { split: bool, bridge: bool },
    NetVhost { split: bool },
    Ovs,
}

impl Backend {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Shunt { split: false, bridge: false } => "shunt",
            Self::Shunt { split: false, bridge: true } => "shunt bridge",
            Self::Shunt { split: true, .. } => "shunt split",
            Self::NetVhost { split: false } => "net_vhost",
            Self::NetVhost { split: true } => "net_vhost split",
            Self::Ovs => "ovs-dpdk",
        }
    }

    fn ring(self) -> &'static str {
        match self {
            Self::Shunt { split: true, .. } | Self::NetVhost { split: true } => "split",
            _ => "packed",
        }
    }
}

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Outcome {
    /// Packets per second that arrived, both directions summed.
    pub(super) pps: f64,
    /// Busy cycles of the backend per packet, by its own count.
    pub(super) cycles: Option<f64>,
}

/// A directory of one run: sockets and databases. It goes away with the value.
struct Place(PathBuf);

impl Place {
    fn make() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("shunt-bench-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Starts the backend, runs the generator against it once, stops it.
pub(super) fn measure(backend: Backend, binary: &Path, options: &Options) -> Result<Outcome> {
    let place = Place::make()?;
    let sockets = [place.0.join("a.sock"), place.0.join("b.sock")];
    let [a, b] = &sockets;
    let pair = format!("{},{}", a.display(), b.display());
    match backend {
        Backend::Shunt { bridge, .. } => {
            let extra: &[&str] = if bridge { &["--bridge"] } else { &[] };
            generate(backend, binary, options, extra)
        }
        Backend::NetVhost { .. } => {
            let peer = testpmd::Peer::start(&sockets)?;
            let outcome = generate(backend, binary, options, &["--sockets", &pair])?;
            Ok(Outcome { cycles: peer.finish()?, ..outcome })
        }
        Backend::Ovs => {
            let peer = ovs::Peer::start(&place.0, &sockets)?;
            let outcome = generate(backend, binary, options, &["--server", "--sockets", &pair])?;
            Ok(Outcome { cycles: peer.finish()?, ..outcome })
        }
    }
    .with_context(|| format!("a run of {}", backend.name()))
}

fn generate(backend: Backend, binary: &Path, options: &Options, extra: &[&str]) -> Result<Outcome> {
    let mut command = program(binary);
    command.args(["bench", "pvp", "--json", "--ring", backend.ring()]);
    command.args(["--seconds", &options.seconds.to_string(), "--size", &options.size.to_string()]);
    command.args(extra).args(&options.generator);
    parse(&output(&mut command)?)
}

fn parse(text: &str) -> Result<Outcome> {
    let value: Value = serde_json::from_str(text).with_context(|| format!("not the generator's JSON: {text}"))?;
    let pps = value["rx_pps"].as_f64().with_context(|| format!("no rx_pps in {text}"))?;
    Ok(Outcome { pps, cycles: value["cycles_per_packet"].as_f64() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generators_line_is_read() -> Result<()> {
        let own = parse(r#"{"ring":"packed","rx_pps":12500000.5,"tx_pps":1,"cycles_per_packet":101.5}"#)?;
        assert_eq!(own, Outcome { pps: 12_500_000.5, cycles: Some(101.5) });
        assert_eq!(parse(r#"{"rx_pps":1,"cycles_per_packet":null}"#)?.cycles, None);
        Ok(())
    }
}
