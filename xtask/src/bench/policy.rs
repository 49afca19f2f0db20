// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Policies for benchmarks: in every layer exactly one rule is for each flow of `shunt bench pvp`, in each direction; which one
//! is uniform over the flows. In stateful layers there are rules for the client's packets only, and the server's pass by the
//! connection. What no rule is for is blocked, so a run in which nothing is lost has met all of them.

use std::fmt::{Display, Formatter, Result};

use anyhow::ensure;
use clap::Args;

use super::cells::{self, Cell, Cut, cells};

/// Seconds after which a connection without packets is forgotten.
const IDLE_S: u32 = 240;

/// What a policy is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub(super) struct Shape {
    /// Layers of each port
    #[arg(long, default_value_t = 10)]
    pub(super) layers: u32,
    /// Rules of each layer for each direction
    #[arg(long, default_value_t = 200)]
    pub(super) rules: u32,
    /// Groups over which the rules of a layer are spread
    #[arg(long, default_value_t = 1)]
    pub(super) groups: u32,
    /// Layers, from the VM's side, that allow statefully: what the client opens, the server may answer
    #[arg(long, default_value_t = 0)]
    pub(super) stateful: u32,
}

/// A policy, printed as a file for `shunt policy apply`.
#[derive(Clone, Debug, Args)]
pub(super) struct Policy {
    #[command(flatten)]
    pub(super) shape: Shape,
    /// The port of the clients and the port of the servers
    #[arg(long, value_delimiter = ',', num_args = 2, default_value = "a,b", value_name = "A,B")]
    pub(super) ports: Vec<String>,
    /// Whose policy it is
    #[arg(long, default_value = "bench")]
    pub(super) controller: String,
    /// Order of the layer nearest the VM
    #[arg(long, default_value_t = 0)]
    pub(super) first_order: u32,
}

impl Policy {
    /// One for the ports and the controller of the benchmark's own nodes.
    pub(super) fn new(shape: Shape) -> Self {
        Self { shape, ports: vec!["a".into(), "b".into()], controller: "bench".into(), first_order: 0 }
    }

    pub(super) fn check(&self) -> anyhow::Result<()> {
        let Shape { layers, rules, groups, stateful } = self.shape;
        ensure!(self.ports.len() == 2, "--ports: two are needed, as A,B");
        ensure!(cells::can_be(rules), "--rules: flows cannot be divided among {rules} rules");
        ensure!((1..=rules).contains(&groups), "--groups: 1 to {rules}, the number of rules, are possible");
        ensure!(stateful <= layers, "--stateful: there are {layers} layers");
        Ok(())
    }
}

/// The side that a port is on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

impl Display for Policy {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        writeln!(f, "controller = {:?}", self.controller)?;
        for (port, side) in self.ports.iter().zip([Side::Client, Side::Server]) {
            for layer in 0..self.shape.layers {
                let order = self.first_order + layer;
                writeln!(f, "\n[[layer]]\nport = {port:?}\nname = \"l{layer}\"\norder = {order}\ndefault = \"block\"")?;
                self.groups(f, side, layer)?;
            }
        }
        Ok(())
    }
}

impl Policy {
    fn groups(&self, f: &mut Formatter<'_>, side: Side, layer: u32) -> Result {
        let Shape { rules, groups, stateful, .. } = self.shape;
        let calls = if side == Side::Client { "out" } else { "in" };
        let (action, directions) = if layer < stateful {
            (format!("{{ type = \"allow\", stateful = true, idle_s = {IDLE_S} }}"), &[calls][..])
        } else {
            ("{ type = \"allow\" }".to_owned(), &["out", "in"][..])
        };
        let cells = cells(layer, rules, Cut::Even);
        for group in 0..groups {
            writeln!(f, "\n[[layer.group]]\nname = \"g{group}\"\norder = {group}")?;
            // Dealt like cards, so that every group is for flows everywhere.
            for (place, cell) in cells.iter().enumerate().skip(group as usize).step_by(groups as usize) {
                let priority = cells.len() - place;
                for dir in directions {
                    writeln!(
                        f,
                        "\n[[layer.group.rule]]\nname = \"{dir}{place}\"\npriority = {priority}\ndir = {dir:?}"
                    )?;
                    writeln!(f, "match = {}\naction = {action}", conditions(cell, side, dir))?;
                }
            }
        }
        Ok(())
    }
}

/// What a packet of the cell looks like where it is.
fn conditions(Cell { server, client_ports }: &Cell, side: Side, dir: &str) -> String {
    let to_server = (side == Side::Client) == (dir == "out");
    let (address, port) = if to_server { ("dst_ip", "src_port") } else { ("src_ip", "dst_port") };
    let (first, last) = (client_ports.start(), client_ports.end());
    format!("{{ {address} = [\"{server}\"], {port} = [\"{first}-{last}\"] }}")
}

#[cfg(test)]
mod tests {
    use toml::{Table, Value};

    use super::*;

    fn text(shape: Shape) -> String {
        Policy::new(shape).to_string()
    }

    #[test]
    fn a_small_one() {
        let text = text(Shape { layers: 2, rules: 2, groups: 1, stateful: 1 });
        let begin = r#"controller = "bench"

[[layer]]
port = "a"
name = "l0"
order = 0
default = "block"

[[layer.group]]
name = "g0"
order = 0

[[layer.group.rule]]
name = "out0"
priority = 2
dir = "out"
match = { dst_ip = ["10.128.0.0/25"], src_port = ["16384-49151"] }
action = { type = "allow", stateful = true, idle_s = 240 }

[[layer.group.rule]]
name = "out1"
priority = 1
dir = "out"
match = { dst_ip = ["10.128.0.128/25"], src_port = ["16384-49151"] }
action = { type = "allow", stateful = true, idle_s = 240 }

[[layer]]
port = "a"
name = "l1"
order = 1
default = "block"

[[layer.group]]
name = "g0"
order = 0

[[layer.group.rule]]
name = "out0"
priority = 2
dir = "out"
match = { dst_ip = ["10.128.0.128/25"], src_port = ["16384-49151"] }
action = { type = "allow" }

[[layer.group.rule]]
name = "in0"
priority = 2
dir = "in"
match = { src_ip = ["10.128.0.128/25"], dst_port = ["16384-49151"] }
action = { type = "allow" }
"#;
        assert!(text.starts_with(begin), "{text}");
    }

    #[test]
    fn layers_groups_and_rules_are_as_many_as_asked_for() {
        let shape = Shape { layers: 3, rules: 20, groups: 6, stateful: 2 };
        let table: Table = text(shape).parse().unwrap();
        let list = |value: &Value, key: &str| value.get(key).and_then(Value::as_array).unwrap().clone();
        let layers = table["layer"].as_array().unwrap();
        assert_eq!(layers.len(), 6);
        for (index, layer) in layers.iter().enumerate() {
            assert_eq!(layer["port"].as_str(), Some(if index < 3 { "a" } else { "b" }));
            assert_eq!(layer["order"].as_integer(), i64::try_from(index % 3).ok());
            let groups = list(layer, "group");
            let rules: Vec<Value> = groups.iter().flat_map(|group| list(group, "rule")).collect();
            let stateful = index % 3 < 2;
            assert_eq!((groups.len(), rules.len()), (6, if stateful { 20 } else { 40 }));
            for rule in rules {
                let server = index >= 3;
                let address = if (rule["dir"].as_str() == Some("out")) == server { "src_ip" } else { "dst_ip" };
                assert!(rule["match"].get(address).is_some(), "{rule}");
                assert_eq!(rule["action"].get("stateful").is_some(), stateful, "{rule}");
                assert!(!stateful || (rule["dir"].as_str() == Some("in")) == server, "{rule}");
            }
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let fine = Shape { layers: 2, rules: 5, groups: 2, stateful: 1 };
        Policy::new(fine).check().unwrap();
        for (shape, part) in [
            (Shape { rules: 0, ..fine }, "--rules"),
            (Shape { groups: 6, ..fine }, "--groups"),
            (Shape { groups: 0, ..fine }, "--groups"),
            (Shape { stateful: 3, ..fine }, "--stateful"),
        ] {
            let error = Policy::new(shape).check().unwrap_err().to_string();
            assert!(error.starts_with(part), "{error}");
        }
    }
}
