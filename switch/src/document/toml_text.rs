// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A document as TOML, laid out as people do it: objects under headings, all else on one line each.

use std::fmt::Write;

use super::node::{Member, Node, Value};

/// Lists of objects, each under a heading of its own.
const OBJECTS: [&str; 4] = ["layer", "group", "rule", "resource"];
/// Tables that may be long.
const LONG: &str = "entries";

/// Writes a document.
pub(super) fn write(document: &Node<'_>) -> String {
    let mut text = String::new();
    body(&mut text, document, "");
    text
}

/// What stands under a heading: first what is on one line, then what has headings.
fn body(text: &mut String, node: &Node<'_>, path: &str) {
    let Value::Table(members) = &node.value else { return };
    let (headed, plain): (Vec<_>, Vec<_>) = members.iter().partition(|member| has_headings(member));
    for Member { key, node, .. } in plain {
        write_key(text, key);
        text.push_str(" = ");
        value(text, node);
        text.push('\n');
    }
    for Member { key, node, .. } in headed {
        let path = if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
        match &node.value {
            Value::List(objects) => {
                for object in objects {
                    // Writing to a string cannot fail.
                    let _ = writeln!(text, "\n[[{path}]]");
                    body(text, object, &path);
                }
            }
            _ => {
                let _ = writeln!(text, "\n[{path}]");
                body(text, node, &path);
            }
        }
    }
}

fn has_headings(member: &Member<'_>) -> bool {
    match &member.node.value {
        Value::List(_) => OBJECTS.contains(&&*member.key),
        Value::Table(_) => member.key == LONG,
        _ => false,
    }
}

fn value(text: &mut String, node: &Node<'_>) {
    match &node.value {
        Value::Truth(truth) => text.push_str(if *truth { "true" } else { "false" }),
        Value::Integer(number) => {
            let _ = write!(text, "{number}");
        }
        Value::Text(string) => quoted(text, string),
        Value::List(items) => {
            text.push('[');
            for (at, item) in items.iter().enumerate() {
                text.push_str(if at == 0 { "" } else { ", " });
                value(text, item);
            }
            text.push(']');
        }
        Value::Table(members) if members.is_empty() => text.push_str("{}"),
        Value::Table(members) => {
            text.push_str("{ ");
            for (at, Member { key, node, .. }) in members.iter().enumerate() {
                text.push_str(if at == 0 { "" } else { ", " });
                write_key(text, key);
                text.push_str(" = ");
                value(text, node);
            }
            text.push_str(" }");
        }
        // Only what was read can be unusable, and that is not written.
        Value::Unusable(what) => quoted(text, what),
    }
}

fn write_key(text: &mut String, key: &str) {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if bare { text.push_str(key) } else { quoted(text, key) }
}

fn quoted(text: &mut String, string: &str) {
    text.push('"');
    for c in string.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(text, "\\u{:04x}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text.push('"');
}
