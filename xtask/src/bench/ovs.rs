// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! OVS-DPDK with two vhost-user client ports and a flow from each to the other. It connects: the generator listens.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use anyhow::{Context, Result};

use super::testpmd::wait_for_files;
use crate::command::{output, program, run};

const VSWITCHD: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
/// Core 0, as a mask: for its polling thread and for the rest of it.
const CORES: &str = "0x1";

/// A running OVS of our own; dropping it kills it.
pub(super) struct Peer {
    database: Child,
    switch: Option<Child>,
    place: PathBuf,
}

impl Peer {
    /// Starts database and switch in `place` and adds ports that connect to `sockets`.
    pub(super) fn start(place: &Path, sockets: &[PathBuf; 2]) -> Result<Self> {
        let database_file = place.join("conf.db");
        let socket = place.join("db.sock");
        run(program("ovsdb-tool").arg("create").arg(&database_file).arg(SCHEMA))?;
        let mut server = program("ovsdb-server");
        server.arg(&database_file).arg(format!("--remote=punix:{}", socket.display())).arg("--no-chdir");
        let database = quietly(&mut server, place)?;
        let mut peer = Self { database, switch: None, place: place.to_owned() };
        wait_for_files(&mut peer.database, &[&socket])?;

        peer.vsctl(&["--no-wait", "init"])?;
        let settings = [
            "other_config:dpdk-init=true".to_owned(),
            format!("other_config:pmd-cpu-mask={CORES}"),
            format!("other_config:dpdk-lcore-mask={CORES}"),
            "other_config:dpdk-socket-mem=256".to_owned(),
            "other_config:dpdk-extra=--no-pci --in-memory".to_owned(),
        ];
        let mut words = vec!["--no-wait", "set", "Open_vSwitch", "."];
        words.extend(settings.iter().map(String::as_str));
        peer.vsctl(&words)?;

        let control = place.join("ctl");
        let mut vswitchd = program(VSWITCHD);
        vswitchd.arg(peer.remote()).arg(format!("--unixctl={}", control.display()));
        let switch = peer.switch.insert(quietly(&mut vswitchd, place)?);
        wait_for_files(switch, &[&control])?;
        peer.connect(sockets)?;
        Ok(peer)
    }

    /// Returns its busy cycles per packet and stops it.
    pub(super) fn finish(self) -> Result<Option<f64>> {
        let control = self.place.join("ctl");
        let said = output(program("ovs-appctl").arg("-t").arg(&control).arg("dpif-netdev/pmd-stats-show"))?;
        Ok(cycles(&said))
    }

    fn connect(&self, sockets: &[PathBuf; 2]) -> Result<()> {
        self.vsctl(&["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev"])?;
        for (i, socket) in sockets.iter().enumerate() {
            let (name, number) = (format!("v{i}"), format!("ofport_request={}", i + 1));
            let path = format!("options:vhost-server-path={}", socket.display());
            let kind = "type=dpdkvhostuserclient";
            self.vsctl(&["add-port", "br0", &name, "--", "set", "Interface", &name, kind, &path, &number])?;
        }
        let bridge = format!("unix:{}", self.place.join("br0.mgmt").display());
        run(program("ovs-ofctl").args(["del-flows", &bridge]))?;
        for flow in ["in_port=1,actions=output:2", "in_port=2,actions=output:1"] {
            run(program("ovs-ofctl").args(["add-flow", &bridge, flow]))?;
        }
        Ok(())
    }

    fn vsctl(&self, words: &[&str]) -> Result<()> {
        run(program("ovs-vsctl").arg(format!("--db={}", self.remote())).args(words))
    }

    fn remote(&self) -> String {
        format!("unix:{}", self.place.join("db.sock").display())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        for child in self.switch.iter_mut().chain([&mut self.database]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Starts a daemon whose files are in `place` and whose words are in `place/log`.
fn quietly(command: &mut std::process::Command, place: &Path) -> Result<Child> {
    let log = fs::File::options().create(true).append(true).open(place.join("log"))?;
    for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR"] {
        command.env(variable, place);
    }
    let child = command.stdout(Stdio::from(log.try_clone()?)).stderr(Stdio::from(log)).spawn();
    child.with_context(|| format!("cannot start {}", command.get_program().display()))
}

/// The average over the run of the polling thread that forwarded.
fn cycles(said: &str) -> Option<f64> {
    let figures = said.lines().filter_map(|l| l.trim().strip_prefix("avg processing cycles per packet:"));
    figures.filter_map(|f| f.split_whitespace().next()?.parse().ok()).reduce(f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peers_own_count_is_read() {
        let said = "pmd thread numa_id 0 core_id 0:\n  avg cycles per packet: 321.00 (5/3)\n  avg processing cycles per packet: 209.14 (4/3)\nmain thread:\n";
        assert_eq!(cycles(said), Some(209.14));
        assert_eq!(cycles("main thread:\n"), None);
    }
}
