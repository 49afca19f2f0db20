// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `shunt port`: the ports of a running node.

use std::path::PathBuf;

use anyhow::Context;
use backend::config::{MAX_QUEUE_PAIRS, Name, PortConfig, PortKind, Role};
use backend::stats::PortStatus;
use clap::builder::PossibleValuesParser;
use serde_json::json;

use crate::client::{Client, Control};
use crate::columns::Columns;
use crate::output::print;

/// Lists, adds and removes ports of a running node
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Lists the ports
    List {
        /// Print JSON, all there is
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        control: Control,
    },
    /// Adds a port
    Add(Add),
    /// Removes a port; its guest is disconnected
    Remove {
        /// The port
        name: Name,
        #[command(flatten)]
        control: Control,
    },
}

#[derive(Debug, clap::Args)]
struct Add {
    /// The new port
    name: Name,
    /// Socket on which front end and node meet
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// Whether the node listens on it (server) or connects to it (client)
    #[arg(long, default_value = Role::Server.name(), value_parser = PossibleValuesParser::new(Role::NAMES))]
    role: String,
    /// Queue pairs offered
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_QUEUE_PAIRS)))]
    queues: u16,
    /// Workers that serve it; all unless given
    #[arg(long, value_delimiter = ',', value_name = "NAME,..")]
    workers: Vec<Name>,
    /// What is at the other end
    #[arg(long, default_value = PortKind::VhostUser.name())]
    kind: String,
    #[command(flatten)]
    control: Control,
}

/// Does what the command line says.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.what {
        What::List { json: true, control } => print(&(Client::new(control)?.text("/ports")? + "\n")),
        What::List { json: false, control } => list(&Client::new(control)?),
        What::Add(what) => add(what),
        What::Remove { name, control } => {
            Client::new(control)?.delete(&format!("/ports/{name}"))?;
            print(&format!("port {name} is removed\n"))
        }
    }
}

fn list(client: &Client) -> anyhow::Result<()> {
    let ports: Vec<PortStatus> = client.get("/ports")?;
    if ports.is_empty() {
        return print("no ports\n");
    }
    let mut table = Columns::new(&["PORT", "KIND", "STATE", "RING", "PAIRS", "ROLE", "SOCKET"]);
    for port in ports {
        table.row([
            port.name,
            port.kind.to_string(),
            port.state.to_string(),
            port.ring.map_or_else(|| "-".to_owned(), |ring| ring.to_string()),
            port.queue_pairs.to_string(),
            port.role.to_string(),
            port.socket,
        ]);
    }
    print(&table.to_string())
}

fn add(what: &Add) -> anyhow::Result<()> {
    let name = &what.name;
    // The node has its own idea of where relative paths begin.
    let socket = std::path::absolute(&what.socket).with_context(|| format!("socket {}", what.socket.display()))?;
    let mut port = json!({
        "name": name, "kind": what.kind, "role": what.role, "queues": what.queues,
        "socket": socket.to_str().with_context(|| format!("socket {} is not text", socket.display()))?,
    });
    if !what.workers.is_empty() {
        port["workers"] = json!(what.workers);
    }
    // The same judgement as the node's, but before anybody needs to answer.
    let port = PortConfig::from_json(port.to_string().as_bytes()).with_context(|| format!("port {name}"))?;
    let status: PortStatus = Client::new(&what.control)?.post("/ports", &port)?;
    print(&format!("port {name} is {} on {}\n", status.state, status.socket))
}
