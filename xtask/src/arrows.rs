// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The dependency arrows between the crates (docs/design.md): they point one way, and what is pure stays pure.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use crate::command::{cargo, output};

/// What each crate may depend on among ours. Development dependencies are free: they are not part of the product.
const ALLOWED: [(&str, &[&str]); 12] = [
    ("shunt-packet", &[]),
    ("shunt-vhost-user", &[]),
    ("shunt-virtqueue", &[]),
    ("shunt-aggregation", &[]),
    ("shunt-switch", &["shunt-packet"]),
    ("shunt-backend", &["shunt-aggregation", "shunt-packet", "shunt-switch", "shunt-vhost-user", "shunt-virtqueue"]),
    ("shunt-cnf", &["shunt-aggregation", "shunt-packet", "shunt-vhost-user", "shunt-virtqueue"]),
    ("shunt-cnf-c", &["shunt-cnf", "shunt-virtqueue"]),
    (
        "shunt-cli",
        &[
            "shunt-aggregation",
            "shunt-backend",
            "shunt-cnf",
            "shunt-packet",
            "shunt-switch",
            "shunt-vhost-user",
            "shunt-virtqueue",
        ],
    ),
    ("shunt-fuzz", &["shunt-aggregation", "shunt-packet", "shunt-switch", "shunt-vhost-user", "shunt-virtqueue"]),
    ("shunt-qemu-tests", &[]),
    ("xtask", &[]),
];

/// What crates without sockets, threads and clock may not pull in, not even through others.
const IMPURE: [&str; 6] = ["tokio", "mio", "socket2", "epoll", "axum", "signal-hook"];
const PURE: [&str; 4] = ["shunt-packet", "shunt-vhost-user", "shunt-switch", "shunt-aggregation"];

/// Package name to the names of what it depends on directly.
type Graph = BTreeMap<String, Vec<String>>;

/// Fails with one line per forbidden arrow.
pub(crate) fn check() -> Result<()> {
    let direct = tree(&["--workspace", "--depth", "1"])?;
    let mut wrong = forbidden(&parse(&direct));
    for package in PURE {
        let all = tree(&["--package", package])?;
        wrong.extend(impure(package, &all));
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    Ok(())
}

fn tree(what: &[&str]) -> Result<String> {
    let how = ["tree", "--quiet", "--edges", "normal,build", "--prefix", "depth", "--format", " {p}"];
    output(cargo(&how).args(what))
}

/// Reads lines of `<depth> <name> v<version>…`.
fn parse(tree: &str) -> Graph {
    let mut graph = Graph::new();
    let mut package = String::new();
    for line in tree.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("0"), Some(name)) => {
                name.clone_into(&mut package);
                graph.entry(package.clone()).or_default();
            }
            (Some("1"), Some(name)) => graph.entry(package.clone()).or_default().push(name.to_owned()),
            _ => {}
        }
    }
    graph
}

fn forbidden(graph: &Graph) -> Vec<String> {
    let rules: BTreeMap<&str, &[&str]> = ALLOWED.into();
    let mut wrong = Vec::new();
    for (package, dependencies) in graph {
        let Some(allowed) = rules.get(package.as_str()) else {
            wrong.push(format!("{package} is not in the table of arrows (xtask/src/arrows.rs, docs/design.md)"));
            continue;
        };
        let ours = dependencies.iter().filter(|d| rules.contains_key(d.as_str()));
        wrong.extend(
            ours.filter(|d| !allowed.contains(&d.as_str())).map(|d| format!("{package} may not depend on {d}")),
        );
    }
    wrong
}

fn impure(package: &str, tree: &str) -> Vec<String> {
    let names = tree.lines().filter_map(|line| line.split_whitespace().nth(1));
    names.filter(|name| IMPURE.contains(name)).map(|name| format!("{package} is pure and may not use {name}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forbidden_arrow_is_named() {
        let tree = "0 shunt-switch v0.1.0 (/x)\n1 shunt-packet v0.1.0 (/x)\n1 foldhash v0.2.0\n\n0 shunt-packet v0.1.0 (/x)\n1 shunt-switch v0.1.0 (/x)\n";
        assert_eq!(forbidden(&parse(tree)), ["shunt-packet may not depend on shunt-switch"]);
    }

    #[test]
    fn a_crate_without_a_rule_is_named() {
        let wrong = forbidden(&parse("0 shunt-novel v0.1.0 (/x)\n"));
        assert_eq!(wrong.len(), 1);
        assert!(wrong[0].starts_with("shunt-novel is not in the table"), "{wrong:?}");
    }

    #[test]
    fn an_impure_dependency_is_found_at_any_depth() {
        let wrong = impure("shunt-packet", "0 shunt-packet v0.1.0\n1 a v1.0.0\n2 tokio v1.0.0\n");
        assert_eq!(wrong, ["shunt-packet is pure and may not use tokio"]);
    }
}
