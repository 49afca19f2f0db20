// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `shunt flows`: what a port remembers.

use backend::config::Name;
use backend::control::{FlowInfo, FlowList};

use crate::client::{Client, Control, Identity};
use crate::columns::Columns;
use crate::output::print;

/// Flows that are asked for at once.
const PAGE: usize = 1000;

/// Shows the live flows of a port
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The port
    #[arg(long, value_name = "NAME")]
    port: Name,
    /// Show at most so many
    #[arg(long, value_name = "N", default_value_t = PAGE, value_parser = at_least_one)]
    limit: usize,
    /// Print JSON, all there is
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    control: Control,
}

/// Asks, a page at a time, and prints.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let client = Client::of_policy(&args.control, &Identity::default())?;
    let mut all = FlowList::default();
    loop {
        let limit = PAGE.min(args.limit - all.flows.len());
        let cursor = all.next.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let page: FlowList = client.get(&format!("/ports/{}/flows?limit={limit}{cursor}", args.port))?;
        all = FlowList { flows: [all.flows, page.flows].concat(), ..page };
        if all.next.is_none() || all.flows.len() >= args.limit {
            break;
        }
    }
    if args.json {
        return print(&(serde_json::to_string(&all)? + "\n"));
    }
    print(&render(&all))
}

fn render(list: &FlowList) -> String {
    if list.flows.is_empty() {
        return "no flows\n".to_owned();
    }
    let mut table = Columns::new(&[
        "FLOW", "DIR", "TUPLE", "TCP", "SEEN", "IDLE-S", "PACKETS", "BYTES", "RTT-US", "RETRANS", "CE", "DROPPED",
    ]);
    for flow in &list.flows {
        let dash = || "-".to_owned();
        table.row([
            flow.id.to_string(),
            flow.direction.clone(),
            flow.tuple.clone().unwrap_or_else(|| fields(flow)),
            flow.tcp.clone().unwrap_or_else(dash),
            (if flow.confirmed { "both ways" } else { "one way" }).to_owned(),
            format!("{}.{}", flow.idle_ms / 1000, flow.idle_ms % 1000 / 100),
            flow.count.packets.to_string(),
            flow.count.bytes.to_string(),
            of_tcp(flow, flow.rtt_us.map(|rtt| rtt.map_or_else(dash, |us| us.to_string()))),
            of_tcp(flow, flow.retransmits.map(|count| count.to_string())),
            of_tcp(flow, flow.congestion_marks.map(|count| count.to_string())),
            flow.dropped.clone().unwrap_or_else(dash),
        ]);
    }
    let more = if list.next.is_some() { "and more; --limit shows them\n" } else { "" };
    format!("{table}{more}")
}

/// Something of the initiator and of the responder, which is known of TCP only.
fn of_tcp(flow: &FlowInfo, [initiator, responder]: [String; 2]) -> String {
    if flow.tcp.is_some() { format!("{initiator}/{responder}") } else { "-".to_owned() }
}

/// What stands for the tuple of what has none.
fn fields(flow: &FlowInfo) -> String {
    let one = |name: &str| flow.fields.get(name).map_or("?", String::as_str);
    format!("{} {} > {}", one("ether_type"), one("eth_src"), one("eth_dst"))
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|limit| *limit > 0).ok_or_else(|| "not a number from 1 on".to_owned())
}

#[cfg(test)]
mod tests {
    use backend::control::Count;

    use super::*;

    #[test]
    fn flows_are_a_line_each() {
        let flow = FlowInfo {
            id: 7,
            direction: "out".to_owned(),
            tuple: Some("tcp 10.0.0.1:1 > 10.0.0.2:80".to_owned()),
            fields: [("ether_type", "arp"), ("eth_src", "02:00:00:00:00:01"), ("eth_dst", "ff:ff:ff:ff:ff:ff")]
                .map(|(name, text)| (name.to_owned(), text.to_owned()))
                .into(),
            count: Count { packets: 9, bytes: 5400 },
            pending: Count::default(),
            idle_ms: 1250,
            confirmed: true,
            tcp: Some("established".to_owned()),
            retransmits: [1, 2],
            rtt_us: [Some(850), None],
            congestion_marks: [0, 3],
            dropped: None,
            redirected: None,
        };
        let arp = FlowInfo {
            id: 8,
            tuple: None,
            tcp: None,
            confirmed: false,
            count: Count { packets: 1, bytes: 60 },
            dropped: Some("policy_block".to_owned()),
            ..flow.clone()
        };
        let list = FlowList { version: 1, flows: vec![flow, arp], next: Some(9) };
        let expected = "\
FLOW  DIR  TUPLE                                      TCP          SEEN       IDLE-S  PACKETS  BYTES  RTT-US  RETRANS   CE  DROPPED
   7  out  tcp 10.0.0.1:1 > 10.0.0.2:80               established  both ways     1.2        9   5400   850/-      1/2  0/3  -
   8  out  arp 02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff  -            one way       1.2        1     60       -        -    -  policy_block
and more; --limit shows them
";
        assert_eq!(render(&list), expected);
        assert_eq!(render(&FlowList::default()), "no flows\n");
    }
}
