// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! OVS-DPDK as a peer: port to port, or a pipeline of tables, maybe none, with connection tracking; and whether it did what it was to do.
//!
//! Theory of operation. The pipeline is what the same policy would be in OpenFlow: packets are tracked, new connections
//! committed if they come from the client's port, then each table lets a packet go on to the next if one of its flows is
//! for it, and at the end it is forwarded by MAC address, learning. Only what a flow is for arrives, so a run without loss has
//! met a flow in every table. That the datapath did the work, and not the slow path, is seen in its own counts.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::cells::{Cell, Cut, cells, masked};
use super::policy::Shape;

/// Where the rules begin, after tracking and its verdict.
const FIRST_TABLE: u32 = 2;

/// The most of the packets that may need the slow path: the first ones of flows.
const MOST_UPCALLS: f64 = 0.01;

/// A pipeline, and how many connections it is to track.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tables {
    pub(super) shape: Shape,
    /// Ports whose first packets make connections.
    pub(super) clients: &'static [u32],
    pub(super) tcp: bool,
    pub(super) connections: u32,
}

/// A database, a daemon and its flows, in a shell because that is how OVS is operated; it ends with its own statistics.
pub(super) fn command(directory: &Path, sockets: &[PathBuf], tables: Option<&Tables>) -> Result<Command> {
    const SCRIPT: &str = r#"
set -eu
export OVS_RUNDIR=$DIR OVS_LOGDIR=$DIR OVS_DBDIR=$DIR
daemon=/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk
db=unix:$DIR/db.sock
ovsdb-tool create $DIR/conf.db /usr/share/openvswitch/vswitch.ovsschema
ovsdb-server $DIR/conf.db --remote=p$db --pidfile=$DIR/db.pid --detach --log-file=$DIR/db.log
ovs-vsctl --db=$db --no-wait init
ovs-vsctl --db=$db --no-wait set Open_vSwitch . other_config:dpdk-init=true other_config:pmd-cpu-mask=0x1 \
  other_config:dpdk-lcore-mask=0x2 other_config:dpdk-socket-mem=256 "other_config:dpdk-extra=--no-pci --file-prefix=o$$"
$daemon $db --pidfile=$DIR/vs.pid --detach --log-file=$DIR/vs.log
ctl=$(ls $DIR/ovs-vswitchd*.ctl)
bridge=unix:$DIR/br0.mgmt
finish() {
  ovs-appctl -t $ctl dpif-netdev/pmd-stats-show || true
  echo "connections tracked: $(ovs-appctl -t $ctl dpctl/dump-conntrack | wc -l)"
  echo "flows unmet: $(ovs-ofctl dump-flows $bridge | grep -c n_packets=0, || true)"
  kill $(cat $DIR/vs.pid) $(cat $DIR/db.pid)
  exit 0
}
trap finish TERM
ovs-vsctl --db=$db add-br br0 -- set bridge br0 datapath_type=netdev
ovs-ofctl del-flows $bridge
ovs-ofctl add-flows $bridge $DIR/flows
port=0
for socket in $SOCKETS; do
  port=$((port + 1))
  ovs-vsctl --db=$db add-port br0 p$port -- set Interface p$port type=dpdkvhostuserclient options:vhost-server-path=$socket ofport_request=$port mtu_request=9000
done
# Cycles count from when every connection is there.
while [ $(ovs-appctl -t $ctl dpctl/ct-stats-show 2>/dev/null | sed -n 's/^Connections Stats:.*Total: //p;s/^ *Total: //p' | head -n 1 || echo 0) -lt $CONNECTIONS ]; do sleep 0.1; done
sleep 0.2
ovs-appctl -t $ctl dpif-netdev/pmd-stats-clear
while :; do sleep 0.2; done
"#;
    std::fs::write(directory.join("flows"), tables.map_or_else(port_to_port, pipeline))?;
    let connections = tables.map_or(0, |tables| tables.connections);
    let mut command = Command::new("bash");
    command.args(["-c", SCRIPT]).env("DIR", directory);
    let list: Vec<String> = sockets.iter().map(|socket| socket.display().to_string()).collect();
    command.env("SOCKETS", list.join(" "));
    command.env("CONNECTIONS", connections.to_string());
    Ok(command)
}

/// Fails unless what OVS said at its end shows that all connections were tracked, every flow met, and packets handled by
/// the datapath, which passes each of them twice: before tracking and after.
pub(super) fn check(output: &str, tables: &Tables) -> Result<()> {
    let number = |marker: &str| -> Result<f64> {
        let rest = output.split(marker).nth(1).with_context(|| format!("no {marker:?} in what OVS said"))?.trim_start();
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        Ok(rest.get(..end).unwrap_or_default().parse()?)
    };
    let connections = number("connections tracked:")?;
    ensure!(connections >= f64::from(tables.connections), "OVS has tracked {connections} connections only");
    let unmet = number("flows unmet:")?;
    ensure!(unmet < 1.0, "no packet has met {unmet} of OVS's flows");
    let passes = number("avg. datapath passes per packet:")?;
    ensure!(passes > 1.9, "{passes} passes per packet in OVS's datapath: not all packets are tracked");
    let (packets, upcalls) = (number("packets received:")?, number("miss with success upcall:")?);
    ensure!(upcalls <= packets * MOST_UPCALLS, "{upcalls} of {packets} packets needed OVS's slow path");
    Ok(())
}

fn port_to_port() -> String {
    "in_port=1,actions=output:2\nin_port=2,actions=output:1\n".to_owned()
}

fn pipeline(tables: &Tables) -> String {
    let Tables { shape, clients, tcp, .. } = tables;
    let protocol = if *tcp { "tcp" } else { "udp" };
    let mut text = format!(
        "table=0,ip,ct_state=-trk,actions=ct(table=1)\n\
         table=1,{protocol},ct_state=+trk+est,actions=goto_table:{FIRST_TABLE}\n"
    );
    for port in *clients {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "table=1,{protocol},ct_state=+trk+new,in_port={port},actions=ct(commit),goto_table:{FIRST_TABLE}"
        );
    }
    for layer in 0..shape.layers {
        let (table, next) = (FIRST_TABLE + layer, FIRST_TABLE + layer + 1);
        let cells = cells(layer, shape.rules, Cut::Masked);
        for (place, Cell { server, client_ports }) in cells.iter().enumerate() {
            let priority = cells.len() - place;
            let (value, mask) = masked(client_ports);
            for (address, port) in [("nw_dst", "tp_src"), ("nw_src", "tp_dst")] {
                let _ = writeln!(
                    text,
                    "table={table},priority={priority},{protocol},{address}={server},{port}={value:#x}/{mask:#x},\
                     actions=goto_table:{next}"
                );
            }
        }
    }
    let _ = writeln!(text, "table={},actions=normal", FIRST_TABLE + shape.layers);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLES: Tables = Tables {
        shape: Shape { layers: 10, rules: 200, groups: 1, stateful: 1 },
        clients: &[1],
        tcp: false,
        connections: 10_000,
    };

    #[test]
    fn a_pipeline_has_as_many_tables_and_flows_as_the_policy() {
        let text = pipeline(&TABLES);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3 + 10 * 200 * 2 + 1);
        for table in 2..12 {
            assert_eq!(lines.iter().filter(|line| line.starts_with(&format!("table={table},"))).count(), 400);
        }
        assert_eq!(lines[3], "table=2,priority=200,udp,nw_dst=10.128.0.0/27,tp_src=0x4000/0xf800,actions=goto_table:3");
        assert_eq!(lines[4], "table=2,priority=200,udp,nw_src=10.128.0.0/27,tp_dst=0x4000/0xf800,actions=goto_table:3");
        assert_eq!(lines.last(), Some(&"table=12,actions=normal"));
    }

    #[test]
    fn without_tables_connections_are_tracked_and_frames_forwarded() {
        let shape = Shape { layers: 0, rules: 0, groups: 0, stateful: 0 };
        let text = pipeline(&Tables { shape, clients: &[1, 2], ..TABLES });
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5, "{text}");
        assert_eq!(lines[3], "table=1,udp,ct_state=+trk+new,in_port=2,actions=ct(commit),goto_table:2");
        assert_eq!(lines[4], "table=2,actions=normal");
    }

    #[test]
    fn what_ovs_has_not_done_is_said() {
        let said = |tracked: u32, unmet: u32, passes: f64, upcalls: u32| {
            format!(
                "pmd thread numa_id 0 core_id 0:\n  packets received: 1000000\n  packet recirculations: 1000000\n  \
                 avg. datapath passes per packet: {passes:.2}\n  miss with success upcall: {upcalls}\n\
                 connections tracked: {tracked}\nflows unmet: {unmet}\n"
            )
        };
        let told = |text: &str| check(text, &TABLES).map_err(|error| error.to_string());
        assert_eq!(told(&said(10_000, 0, 2.0, 20)), Ok(()));
        assert!(told(&said(9_999, 0, 2.0, 20)).unwrap_err().contains("9999 connections"));
        assert!(told(&said(10_000, 3, 2.0, 20)).unwrap_err().contains("met 3 of"));
        assert!(told(&said(10_000, 0, 1.0, 20)).unwrap_err().contains("1 passes"));
        assert!(told(&said(10_000, 0, 2.0, 20_000)).unwrap_err().contains("20000 of"));
        assert!(told("").unwrap_err().contains("connections tracked"));
    }
}
