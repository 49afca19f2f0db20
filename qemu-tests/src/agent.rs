// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A controller's agent: a client of the REST API that is known by its token, as controllers of real networks are. Nothing
//! is done here in the name of the node's owner.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::node::{Node, binary};
use crate::process::{self, Process};
use crate::scenario::WorkDir;

/// A controller that acts on any number of nodes.
#[derive(Debug)]
pub struct Agent {
    name: String,
    order: [u32; 2],
    token: String,
    token_file: PathBuf,
}

/// What a node answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status of HTTP.
    pub status: u16,
    /// The entity tag with its quotes, if there was one.
    pub etag: Option<String>,
    /// The body; null if there was none.
    pub body: Value,
}

impl Agent {
    /// A controller whose layers have orders in `order`, and a token of its own.
    pub fn new(work: &WorkDir, name: &str, order: [u32; 2]) -> Result<Self> {
        let token = format!("the-token-of-{name}-{}", std::process::id());
        let token_file = work.file(&format!("{name}.token"));
        File::options().create_new(true).write(true).mode(0o600).open(&token_file)?.write_all(token.as_bytes())?;
        Ok(Self { name: name.to_owned(), order, token, token_file })
    }

    /// Its table in a node's configuration.
    pub fn to_toml(&self) -> String {
        let Self { name, order, token_file, .. } = self;
        format!("\n[[controller]]\nname = {name:?}\ntoken_file = {:?}\norder = {order:?}\n", token_file.display())
    }

    /// Makes what it owns on a node equal to a document, by `shunt policy apply`.
    pub fn apply(&self, node: &Node, document: &Path) -> Result<()> {
        let control = node.socket("control");
        let (command, token) = (["policy", "apply"], ["--token-file", "--control"]);
        let argv = [
            binary()?.as_os_str(),
            command[0].as_ref(),
            command[1].as_ref(),
            document.as_os_str(),
            token[0].as_ref(),
            self.token_file.as_os_str(),
            token[1].as_ref(),
            control.as_os_str(),
        ];
        process::run(&argv).map(drop)
    }

    /// A request; `headers` are lines such as `if-match: "3"`.
    pub fn ask(&self, node: &Node, method: &str, path: &str, headers: &[&str], body: &str) -> Result<Reply> {
        let socket = node.socket("control").display().to_string();
        let (who, url) = (self.authorization(), format!("http://node{path}"));
        let mut argv = vec!["curl", "-s", "-S", "-i", "--unix-socket", &socket, "-X", method, "-H", &who];
        argv.extend(headers.iter().flat_map(|header| ["-H", header]));
        if !body.is_empty() {
            argv.extend(["-H", "content-type: application/json", "-d", body]);
        }
        argv.push(&url);
        let text = process::run(&argv)?;
        reply(&text).with_context(|| format!("{method} {path}: {text}"))
    }

    /// A request that must succeed.
    pub fn done(&self, node: &Node, method: &str, path: &str, body: &str) -> Result<Value> {
        let reply = self.ask(node, method, path, &[], body)?;
        ensure!(reply.status / 100 == 2, "{}: {method} {path}: {reply:?}", self.name);
        Ok(reply.body)
    }

    /// Changes a group of rules as it is now, and only if nobody else did so in between; returns what it was before.
    pub fn edit_group(
        &self,
        node: &Node,
        group: &GroupPath<'_>,
        change: impl FnOnce(&mut Vec<Value>),
    ) -> Result<Edited> {
        let path = group.url();
        let held = self.ask(node, "GET", &path, &[], "")?;
        let tag = held.etag.clone().with_context(|| format!("no entity tag of {path}: {held:?}"))?;
        let before = held.body["group"].clone();
        let mut after = before.clone();
        let Some(rules) = after["rule"].as_array_mut() else { bail!("no rules in {before}") };
        change(rules);
        let put = self.ask(node, "PUT", &path, &[&format!("if-match: {tag}")], &after.to_string())?;
        ensure!(put.status == 200 && put.etag.as_ref() != Some(&tag), "{}: PUT {path}: {put:?}", self.name);
        Ok(Edited { before, tag })
    }

    /// Puts a group back to what it was before an edit.
    pub fn put_back(&self, node: &Node, group: &GroupPath<'_>, edited: &Edited) -> Result<()> {
        self.done(node, "PUT", &group.url(), &edited.before.to_string()).map(drop)
    }

    /// A client that listens for this controller's events; what it hears is in its log `<name>-<label>.log`.
    pub fn listen(&self, work: &WorkDir, node: &Node, label: &str) -> Result<Process> {
        let socket = node.socket("control").display().to_string();
        let who = self.authorization();
        let argv = ["curl", "-s", "-N", "--unix-socket", &socket, "-H", &who, "http://node/events"];
        Process::spawn(work, &format!("{}-{label}", self.name), &argv)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn authorization(&self) -> String {
        format!("authorization: Bearer {}", self.token)
    }
}

/// Where a group is: `port/layer/group`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupPath<'a>(pub &'a str, pub &'a str, pub &'a str);

impl GroupPath<'_> {
    /// The path of its resource.
    pub fn url(&self) -> String {
        format!("/ports/{}/layers/{}/groups/{}", self.0, self.1, self.2)
    }
}

/// What an edit replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edited {
    /// The group as it was.
    pub before: Value,
    /// Its entity tag then.
    pub tag: String,
}

/// Reads what `curl -i` prints.
fn reply(text: &str) -> Result<Reply> {
    let (head, body) = text.split_once("\r\n\r\n").context("no end of the header")?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status")?.parse()?;
    let etag = lines.filter_map(|line| line.split_once(": ")).find(|(name, _)| name.eq_ignore_ascii_case("etag"));
    let body = if body.trim().is_empty() { Value::Null } else { serde_json::from_str(body).context("the body")? };
    Ok(Reply { status, etag: etag.map(|(_, tag)| tag.trim().to_owned()), body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read() -> Result<()> {
        let text = "HTTP/1.1 412 Precondition Failed\r\nETag: \"7\"\r\ncontent-length: 2\r\n\r\n{\"a\": 1}";
        let expected = Reply { status: 412, etag: Some("\"7\"".to_owned()), body: serde_json::json!({"a": 1}) };
        assert_eq!(reply(text)?, expected);
        assert_eq!(reply("HTTP/1.1 204 No Content\r\n\r\n")?, Reply { status: 204, etag: None, body: Value::Null });
        assert_eq!(reply("curl: (7)").map_err(|e| e.to_string()), Err("no end of the header".to_owned()));
        Ok(())
    }

    #[test]
    fn a_token_is_for_its_owner_only() -> Result<()> {
        use std::os::unix::fs::PermissionsExt;

        let work = WorkDir::create()?;
        let agent = Agent::new(&work, "acl", [100, 199])?;
        assert_eq!(std::fs::metadata(&agent.token_file)?.permissions().mode() & 0o777, 0o600);
        assert!(agent.to_toml().contains("order = [100, 199]"), "{}", agent.to_toml());
        Ok(())
    }
}
