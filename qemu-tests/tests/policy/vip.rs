// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A service behind a virtual address, translated at the server's port with direct return: clients speak to the virtual
//! address, the server to clients; which back end a connection has it keeps.

use anyhow::{Context, ensure};
use harness::scenario;
use harness::stream::Stream;
use harness::wait::wait_until;

use crate::{Both, GUEST_MAC, SOON};

const GUEST: &str = "10.9.0.100";
const FAR: &str = "10.9.0.1";
const VIP: &str = "10.9.0.200";
const MIB: usize = 1 << 20;

fn balance(backends: &str) -> String {
    format!(
        r#"
controller = "lb"
[[layer]]
port = "vm"
name = "lb"
order = 5
default = "allow"
[[layer.group]]
name = "vips"
[[layer.group.rule]]
name = "web"
dir = "in"
match = {{ ip_proto = "tcp", dst_ip = "{VIP}", dst_port = 80 }}
action = {{ type = "balance", backends = [{backends}] }}
"#
    )
}

#[test]
fn a_service_is_reached_through_its_vip() {
    scenario::run(|work| {
        let mut both = Both::start(work, GUEST, FAR, "", "")?;
        both.far.ip(&format!("neigh add {VIP} lladdr {GUEST_MAC} dev far0"))?;
        let one = format!("\"{GUEST}:8081\"");
        let two = format!("\"{GUEST}:8081\", \"{GUEST}:8082\"");
        both.node.apply(work, &balance(&one))?;
        wait_until("an answer to the guest's ping", SOON, || {
            Ok(both.guest.sh(&format!("busybox ping -c 1 -W 1 {FAR}")).is_ok())
        })?;

        let mut first = Stream::open(work, "first", &both.far, &both.guest, (VIP, 80), 8081)?;
        first.push(4 * MIB)?;
        // A back end more: who is connected stays where he is.
        both.node.apply(work, &balance(&two))?;
        first.push(MIB).context("with another back end")?;
        // The other back end alone, for new connections: the first one's is gone, and with it the connection. So it is
        // added in front of it instead, which changes what new connections get and nothing else.
        both.node.apply(work, &balance(&format!("\"{GUEST}:8082\", {one}")))?;
        first.push(MIB).context("in another order")?;

        both.node.apply(work, &balance(&format!("{one}, \"{GUEST}:8083\"")))?;
        first.push(MIB).context("with one removed that it does not have")?;
        first.finish()?;

        // Only the other one is left: new connections go there.
        both.node.apply(work, &balance(&format!("\"{GUEST}:8082\"")))?;
        let mut second = Stream::open(work, "second", &both.far, &both.guest, (VIP, 80), 8082)?;
        second.push(4 * MIB)?;
        second.finish()?;
        ensure!(both.node.counted("vm/lb/vips/web")?.bytes > 11 << 20, "{:?}", both.node.counted("vm/lb/vips/web")?);
        ensure!(both.node.flows("vm", "hits")? > 500);
        both.nothing_went_wrong()?;
        both.node.terminate()
    });
}
