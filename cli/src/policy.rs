// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `shunt policy`: what is to happen to packets.

use std::fmt::Write;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use backend::config::Name;
use backend::control::{ApplyAnswer, PortLayers, TraceAnswer};
use backend::stats::PortStatus;
use clap::builder::PossibleValuesParser;
use serde_json::{Map, Value, json};
use switch::document::Document;

use crate::client::{Client, Control, Identity};
use crate::columns::Columns;
use crate::output::print;

/// Longest document that is read, in bytes: what the node takes.
const MAX_DOCUMENT: u64 = 64 << 20;

/// Applies, shows and tries the policy of ports
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Makes what a controller owns equal to a document, on all ports
    Apply {
        /// The document, TOML or JSON; - is standard input
        file: PathBuf,
        /// Only say what would change, and which live flows would be treated otherwise
        #[arg(long)]
        dry_run: bool,
        /// Print JSON, all there is
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        identity: Identity,
        #[command(flatten)]
        control: Control,
    },
    /// Says what a document would change
    Diff {
        /// The document, TOML or JSON; - is standard input
        file: PathBuf,
        /// Print JSON, all there is
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        identity: Identity,
        #[command(flatten)]
        control: Control,
    },
    /// Shows the document of a controller; without one, the layers of all ports and what they counted
    Show {
        /// Whose document
        #[arg(long, value_name = "NAME")]
        controller: Option<Name>,
        /// Print JSON, all there is
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        control: Control,
    },
    /// Says what policy would do with a packet that came now, layer by layer
    Simulate(Simulate),
}

#[derive(Debug, clap::Args)]
struct Simulate {
    /// The port
    #[arg(long, value_name = "NAME")]
    port: Name,
    /// Which way the packet goes: in is towards the VM
    #[arg(long, value_parser = PossibleValuesParser::new(["in", "out"]))]
    direction: String,
    /// A five-tuple, such as "tcp 10.0.0.1:1234 > 10.0.0.2:80"
    #[arg(required_unless_present_any = ["packet", "field"], value_name = "TUPLE")]
    tuple: Vec<String>,
    /// The packet's bytes in hexadecimal
    #[arg(long, value_name = "HEX", conflicts_with_all = ["tuple", "field"])]
    packet: Option<String>,
    /// What a field is, as conditions say it, such as vlan=100
    #[arg(long, value_name = "FIELD=VALUE", value_parser = assignment)]
    field: Vec<(String, String)>,
    /// Print JSON, all there is
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    identity: Identity,
    #[command(flatten)]
    control: Control,
}

/// Does what the command line says.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.what {
        What::Apply { file, dry_run, json, identity, control } => {
            let answer = send(file, *dry_run, identity, control)?;
            print(&if *json { answer.text } else { told(&answer.meaning, *dry_run) })
        }
        What::Diff { file, json, identity, control } => {
            let answer = send(file, true, identity, control)?;
            print(&if *json {
                serde_json::to_string(&answer.meaning.changes)? + "\n"
            } else {
                changes(&answer.meaning)
            })
        }
        What::Show { controller: Some(controller), json, control } => {
            let client = Client::of_policy(control, &Identity::default())?;
            let text = client.text(&format!("/policy?controller={controller}"))?;
            print(&if *json { text + "\n" } else { Document::from_json(text.as_bytes())?.to_toml() })
        }
        What::Show { controller: None, json, control } => {
            let ports = layers(&Client::of_policy(control, &Identity::default())?)?;
            print(&if *json { serde_json::to_string(&ports)? + "\n" } else { table(&ports) })
        }
        What::Simulate(args) => simulate(args),
    }
}

/// What the node said about a document.
struct Told {
    text: String,
    meaning: ApplyAnswer,
}

/// Reads a document and sends it. What is wrong with it is said by line, before anybody is asked.
fn send(file: &Path, dry_run: bool, identity: &Identity, control: &Control) -> anyhow::Result<Told> {
    let document = read(file)?;
    let client = Client::of_policy(control, identity)?;
    let text = client.post_text(&format!("/policy?dry_run={dry_run}"), serde_json::to_vec(&document)?)?;
    Ok(Told { meaning: client.meaning(&text)?, text: text + "\n" })
}

fn read(file: &Path) -> anyhow::Result<Document> {
    let name = file.display();
    let mut bytes = Vec::new();
    let read = if file == Path::new("-") {
        io::stdin().lock().take(MAX_DOCUMENT + 1).read_to_end(&mut bytes)
    } else {
        File::open(file).and_then(|file| file.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes))
    };
    read.with_context(|| format!("cannot read {name}"))?;
    anyhow::ensure!(bytes.len() as u64 <= MAX_DOCUMENT, "{name} has more than {MAX_DOCUMENT} bytes");
    // No TOML document begins so, and every JSON one does.
    if bytes.trim_ascii_start().starts_with(b"{") {
        return Document::from_json(&bytes).with_context(|| name.to_string());
    }
    let text = String::from_utf8(bytes).with_context(|| name.to_string())?;
    Document::from_toml(&text).with_context(|| name.to_string())
}

fn changes(answer: &ApplyAnswer) -> String {
    if answer.changes.is_empty() {
        return "nothing changes\n".to_owned();
    }
    answer.changes.iter().map(|change| format!("{change}\n")).collect()
}

/// All that applying did, or would do. Writing to a string cannot fail.
fn told(answer: &ApplyAnswer, dry_run: bool) -> String {
    let mut text = changes(answer);
    for (port, version) in &answer.versions {
        let _ = writeln!(text, "{port}: version {version}");
    }
    for (port, affected) in answer.flows.iter().filter(|_| dry_run) {
        let _ = writeln!(text, "{port}: {} of {} flows would be treated otherwise", affected.changed, affected.flows);
        for example in &affected.examples {
            let flow = &example.flow;
            let who = flow.tuple.clone().unwrap_or_else(|| format!("flow {}", flow.id));
            let _ = writeln!(text, "  {} {who}: {}", flow.direction, difference(&example.now, &example.then));
        }
    }
    text
}

/// What is different between two fates.
fn difference(now: &TraceAnswer, then: &TraceAnswer) -> String {
    if now.outcome != then.outcome {
        return format!("{}, then {}", now.outcome, then.outcome);
    }
    format!("{}, changed otherwise", then.outcome)
}

fn layers(client: &Client) -> anyhow::Result<Vec<PortLayers>> {
    let ports: Vec<PortStatus> = client.get("/ports")?;
    let layers = ports.iter().map(|port| client.get(&format!("/ports/{}/layers", port.name)));
    Ok(layers.collect::<Result<_, _>>()?)
}

/// The layers of all ports, nearest the VM first.
fn table(ports: &[PortLayers]) -> String {
    let head = ["PORT", "ORDER", "LAYER", "CONTROLLER", "DEFAULT", "GROUPS", "RULES", "PACKETS", "BYTES"];
    let mut table = Columns::new(&head);
    let mut any = false;
    for port in ports {
        for layer in &port.layers {
            any = true;
            let counts = [layer.default_count, layer.connection_count, layer.rule_count];
            table.row([
                port.port.clone(),
                layer.order.to_string(),
                layer.name.clone(),
                layer.controller.clone(),
                layer.default.clone(),
                layer.groups.len().to_string(),
                layer.groups.iter().map(|group| group.rules).sum::<u64>().to_string(),
                counts.iter().map(|count| count.packets).sum::<u64>().to_string(),
                counts.iter().map(|count| count.bytes).sum::<u64>().to_string(),
            ]);
        }
    }
    if any { table.to_string() } else { "no policy\n".to_owned() }
}

fn simulate(args: &Simulate) -> anyhow::Result<()> {
    let mut probe = Map::from_iter([("direction".to_owned(), json!(args.direction))]);
    if !args.tuple.is_empty() {
        probe.insert("tuple".to_owned(), args.tuple.join(" ").into());
    }
    if let Some(packet) = &args.packet {
        probe.insert("packet".to_owned(), packet.as_str().into());
    }
    if !args.field.is_empty() {
        let fields = args.field.iter().map(|(field, value)| (field.clone(), Value::from(value.as_str())));
        probe.insert("fields".to_owned(), Value::Object(fields.collect()));
    }
    let client = Client::of_policy(&args.control, &args.identity)?;
    let text = client.post_text(&format!("/ports/{}/simulate", args.port), serde_json::to_vec(&probe)?)?;
    if args.json {
        return print(&(text + "\n"));
    }
    print(&steps(&client.meaning(&text)?))
}

/// A trace in words.
fn steps(trace: &TraceAnswer) -> String {
    let mut text = format!("policy version {}, {}\n", trace.version, trace.direction);
    for step in &trace.steps {
        let _ = writeln!(text, "layer {}: {}: {}", step.layer, step.decided_by, step.action);
    }
    if trace.changes != "none" {
        let _ = writeln!(text, "changes: {}", trace.changes);
    }
    let _ = writeln!(text, "{}", trace.outcome);
    text
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').ok_or("not FIELD=VALUE")?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &Value) -> ApplyAnswer {
        serde_json::from_value(text.clone()).expect("an answer")
    }

    #[test]
    fn applying_says_what_changed() {
        let applied = answer(&json!({
            "changes": [
                {"port": "vm0", "kind": "add", "object": "layer acl", "detail": "order 1, default block"},
                {"port": "vm0", "kind": "remove", "object": "resource d"},
            ],
            "versions": {"vm0": 3},
        }));
        let expected = "+ vm0: layer acl: order 1, default block\n- vm0: resource d\nvm0: version 3\n";
        assert_eq!(told(&applied, false), expected);
        assert_eq!(told(&ApplyAnswer::default(), false), "nothing changes\n");
    }

    #[test]
    fn a_dry_run_says_what_becomes_of_flows() {
        let trace = |outcome: &str| json!({"version": 1, "direction": "out", "steps": [], "changes": "none", "outcome": outcome});
        let flow = json!({
            "id": 7, "direction": "out", "tuple": "tcp 10.0.0.1:1 > 10.0.0.2:80", "fields": {},
            "pending": {"packets": 0, "bytes": 0}, "idle_ms": 0, "confirmed": true, "retransmits": [0, 0],
        });
        let example = json!({"flow": flow, "now": trace("forwarded"), "then": trace("dropped: policy_block")});
        let dry = answer(&json!({
            "changes": [{"port": "vm0", "kind": "change", "object": "group acl/web", "detail": "1 rule changed"}],
            "versions": {},
            "flows": {"vm0": {"flows": 10, "changed": 1, "examples": [example]}},
        }));
        let expected = "\
~ vm0: group acl/web: 1 rule changed
vm0: 1 of 10 flows would be treated otherwise
  out tcp 10.0.0.1:1 > 10.0.0.2:80: forwarded, then dropped: policy_block
";
        assert_eq!(told(&dry, true), expected);
    }

    #[test]
    fn layers_are_a_line_each() {
        let count = |packets: u64| json!({"packets": packets, "bytes": packets * 100});
        let group = json!({"name": "web", "order": 0, "version": 1, "rules": 3, "count": count(4)});
        let flows = json!({
            "flows": 0, "connections": 0, "memory": 0, "hits": 0, "misses": 0, "replanned": 0, "ended_by_policy": 0,
            "over_budget": 0, "evicted": 0, "expired": 0, "nat_exhausted": 0, "waiting": 0,
        });
        let ports = json!([{
            "port": "vm0", "version": 1, "resources": [], "flows": flows,
            "layers": [{
                "name": "acl", "controller": "acl", "order": 10, "default": "block", "default_count": count(1),
                "connection_count": count(2), "rule_count": count(4), "groups": [group],
            }],
        }]);
        let ports: Vec<PortLayers> = serde_json::from_value(ports).expect("an answer");
        let expected = "\
PORT  ORDER  LAYER  CONTROLLER  DEFAULT  GROUPS  RULES  PACKETS  BYTES
vm0      10  acl    acl         block         1      3        7    700
";
        assert_eq!(table(&ports), expected);
        assert_eq!(table(&[]), "no policy\n");
    }
}
