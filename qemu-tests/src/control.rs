// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A node's policy as a controller reaches it: `shunt policy apply`, and `curl` on the control socket.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::node::{Node, binary};
use crate::process::{self, Process};
use crate::scenario::WorkDir;

/// Packets and bytes that a rule counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl std::ops::Sub for Count {
    type Output = Self;

    fn sub(self, base: Self) -> Self {
        Self { packets: self.packets - base.packets, bytes: self.bytes - base.bytes }
    }
}

impl Node {
    /// Makes what the document's controller owns equal to it, by `shunt policy apply`.
    pub fn apply(&self, work: &WorkDir, document: &str) -> Result<()> {
        let file = work.file("policy.toml");
        fs::write(&file, document)?;
        let control = self.socket("control");
        process::run(&[
            binary()?.as_os_str(),
            "policy".as_ref(),
            "apply".as_ref(),
            file.as_os_str(),
            "--control".as_ref(),
            control.as_os_str(),
        ])
        .map(drop)
    }

    /// A request on the control socket in the name of `controller`; the answer must be a success.
    pub fn request(&self, controller: &str, method: &str, path: &str, body: &str) -> Result<Value> {
        let socket = self.socket("control").display().to_string();
        let (who, url) = (format!("shunt-controller: {controller}"), format!("http://node{path}"));
        let mut argv = vec!["curl", "-s", "-S", "--unix-socket", &socket, "-X", method, "-H", &who];
        argv.extend(["-H", "content-type: application/json", "-w", "\n%{http_code}", &url]);
        if !body.is_empty() {
            argv.extend(["-d", body]);
        }
        let text = process::run(&argv)?;
        let (body, code) = text.rsplit_once('\n').context("no status")?;
        ensure!(code.starts_with('2'), "{method} {path} was answered by {code}: {body}");
        if body.trim().is_empty() { Ok(Value::Null) } else { serde_json::from_str(body).context(path.to_owned()) }
    }

    /// What a rule counted, by its path `port/layer/group/rule`.
    pub fn counted(&self, rule: &str) -> Result<Count> {
        let [port, layer, group, rule] = rule.split('/').collect::<Vec<_>>()[..] else {
            anyhow::bail!("{rule} is no path of a rule");
        };
        let path = format!("/ports/{port}/layers/{layer}/groups/{group}/rules/{rule}");
        let answer = self.request("test", "GET", &path, "")?;
        let number = |key: &str| answer["count"][key].as_u64().with_context(|| format!("no {key} in {answer}"));
        Ok(Count { packets: number("packets")?, bytes: number("bytes")? })
    }

    /// What the switch holds of a port's flows: `hits`, `misses`, `flows` and so on.
    pub fn flows(&self, port: &str, what: &str) -> Result<u64> {
        let answer = self.request("test", "GET", &format!("/ports/{port}/layers"), "")?;
        answer["flows"][what].as_u64().with_context(|| format!("no {what} in {answer}"))
    }

    /// What all ports dropped for a cause.
    pub fn dropped(&self, cause: &str) -> Result<u64> {
        Ok(self.stats()?.ports.iter().map(|port| port.dropped(cause)).sum())
    }

    /// A client that listens for events; what it hears is in its log.
    pub fn listen(&self, work: &WorkDir, controller: &str) -> Result<Process> {
        let socket = self.socket("control").display().to_string();
        let url = format!("http://node/events?controller={controller}");
        Process::spawn(work, "events", &["curl", "-s", "-N", "--unix-socket", &socket, &url])
    }
}
