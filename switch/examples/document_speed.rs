// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How long documents of 50 000 rules take to be read and written: `cargo run --release -p shunt-switch --example document_speed`.

use std::fmt::Write;
use std::time::Instant;

use switch::document::Document;

const RULES: u32 = 50_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut text = String::from(
        "controller = 'acl'\n[[layer]]\nport = 'vm0'\nname = 'acl'\norder = 1\ndefault = 'block'\n[[layer.group]]\nname = 'g'\n",
    );
    for n in 0..RULES {
        let (a, b) = (n >> 8 & 255, n & 255);
        writeln!(
            text,
            "[[layer.group.rule]]\nname = 'r{n}'\npriority = {n}\ndir = 'in'\nmatch = {{ src_ip = '10.{a}.{b}.0/24', \
             ip_proto = 'tcp', dst_port = ['80', '1000-2000'] }}\naction = {{ type = 'allow', stateful = true }}"
        )?;
    }
    let timed = |what: &str, bytes: usize, start: Instant| {
        println!("{what}: {bytes} bytes, {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
    };
    for _ in 0..3 {
        let start = Instant::now();
        let document = Document::from_toml(&text)?;
        timed("TOML read", text.len(), start);
        let start = Instant::now();
        let json = serde_json::to_vec(&document)?;
        timed("JSON written", json.len(), start);
        let start = Instant::now();
        let again = Document::from_json(&json)?;
        timed("JSON read", json.len(), start);
        let start = Instant::now();
        timed("TOML written", again.to_toml().len(), start);
    }
    Ok(())
}
