// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where addresses are, told by an agent that hears of misses: too late, wrongly, and never (VF-13). What nobody knows the way
//! of gets nowhere, and is counted.

use anyhow::{Result, ensure};
use harness::testpmd::mac;
use harness::transfer::hash;
use harness::wait::{wait_settled, wait_until};

use super::changes::QUIET;
use super::hosts::{CLIENT, Hosts, MUX, NOBODY, VIP};
use crate::{SOON, missed};

/// `printf hello | sha256sum`
const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

/// Says at a node where an address is.
fn say(hosts: &Hosts, host: usize, address: &str, what: &str) -> Result<()> {
    let entry = format!("/ports/vm0/resources/directory/entries/{address}");
    hosts.agent("vnet")?.done(&hosts.nodes[host], "PUT", &entry, what).map(drop)
}

/// The client asks the service, while nobody knows where either is.
pub(super) fn answers_late_and_wrongly(hosts: &mut Hosts) -> Result<()> {
    let asking = hosts.client.begin(&format!("printf hello | nc {VIP} 80"))?;

    // Late: the first SYN waited in vain; what is sent again waits, too, and gets through.
    missed(hosts.misses(0), 0, VIP)?;
    let first = hosts.misses(0).mark();
    wait_until("the first SYN to be given up", SOON, || Ok(hosts.nodes[0].port("vm0")?.dropped("unresolved") > 0))?;
    missed(hosts.misses(0), first, VIP)?;
    ensure!(hosts.nodes[1].port("vm0")?.tx_packets == 0, "the server got something");
    say(hosts, 0, VIP, &format!(r#"{{ "address": "192.0.2.2", "mac": "{}" }}"#, mac(MUX)))?;

    // Wrongly: on the right host, but nobody's.
    missed(hosts.misses(1), 0, CLIENT)?;
    say(hosts, 1, CLIENT, &format!(r#"{{ "address": "192.0.2.1", "mac": "{}" }}"#, mac(77)))?;
    wait_until("the answer to be lost", SOON, || Ok(hosts.nodes[0].port("up")?.dropped("no_destination") > 0))?;
    ensure!(hosts.nodes[0].port("vm0")?.tx_packets == 0, "the client got something");
    say(hosts, 1, CLIENT, &format!(r#"{{ "address": "192.0.2.1", "mac": "{}" }}"#, mac(2)))?;

    let answer = hosts.client.finish(&asking, SOON)?;
    ensure!(hash(&answer.text) == Some(HELLO), "not the service's answer: {answer:?}");
    Ok(())
}

/// The client asks for one who is not there.
pub(super) fn answers_never(hosts: &mut Hosts) -> Result<()> {
    let ping = format!("ping -c 1 -W 1 {NOBODY}");
    let arrived = |hosts: &Hosts| -> Result<[u64; 2]> {
        Ok([hosts.counted(1, "vm0/vnet/overlay")?.packets, hosts.counted(1, "mux/vnet/overlay")?.packets])
    };
    let before = wait_settled("the end of the first connection", QUIET, SOON, || arrived(hosts))?;
    let unresolved = hosts.nodes[0].port("vm0")?.dropped("unresolved");

    // No answer at all: it is given up after its second, and the next one is asked for anew.
    for n in 1..=2 {
        let mark = hosts.misses(0).mark();
        let answer = hosts.client.run(&ping, SOON)?;
        ensure!(answer.status != 0, "an answer from nowhere: {answer:?}");
        missed(hosts.misses(0), mark, NOBODY)?;
        wait_until("the drop", SOON, || Ok(hosts.nodes[0].port("vm0")?.dropped("unresolved") == unresolved + n))?;
    }

    // The answer that there is nobody: what waits is dropped at once, and nobody is asked any more.
    let mark = hosts.misses(0).mark();
    let asking = hosts.client.begin(&ping)?;
    missed(hosts.misses(0), mark, NOBODY)?;
    say(hosts, 0, NOBODY, r#"{ "unknown_s": 600 }"#)?;
    ensure!(hosts.client.finish(&asking, SOON)?.status != 0);
    let mark = hosts.misses(0).mark();
    ensure!(hosts.client.run(&ping, SOON)?.status != 0);
    let vm0 = hosts.nodes[0].port("vm0")?;
    ensure!(vm0.dropped("no_mapping") == 2 && vm0.dropped("unresolved") == unresolved + 2, "{vm0:?}");
    ensure!(!hosts.misses(0).printed_since(mark)?.contains("event: miss"), "asked for what is known");

    // Nothing of it left the host.
    ensure!(arrived(hosts)? == before, "{:?} became {:?}", before, arrived(hosts)?);
    let simulated = hosts.agent("vnet")?.done(
        &hosts.nodes[0],
        "POST",
        "/ports/vm0/simulate",
        &format!(r#"{{ "direction": "out", "tuple": "icmp {CLIENT}:1 > {NOBODY}:1" }}"#),
    )?;
    ensure!(simulated["outcome"] == "dropped: no_mapping", "{simulated}");
    Ok(())
}
