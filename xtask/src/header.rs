// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The C header of the SDK, made of the crate that is called from C.

use std::fs;

use anyhow::{Context, Result, bail};
use cbindgen::{Builder, Config, DocumentationStyle, Language, Style};

use crate::command::root;

/// Where it is.
const HEADER: &str = "cnf/include/shunt_cnf.h";
/// What it is made of: the crate here, module by module.
const SOURCES: &str = "cnf/src/ffi";

const TOP: &str = "\
/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The C interface of Shunt's SDK for network functions (docs/user-guide/cnf.md). Made by `cargo xtask header`. */";

/// Writes it.
pub(crate) fn write() -> Result<()> {
    fs::write(root().join(HEADER), made()?).with_context(|| format!("cannot write {HEADER}"))
}

/// Fails if it is not the one that the sources make.
pub(crate) fn check() -> Result<()> {
    let there = fs::read_to_string(root().join(HEADER)).unwrap_or_default();
    if there != made()? {
        bail!("{HEADER} is not what {SOURCES} makes; run `cargo xtask header`");
    }
    Ok(())
}

fn made() -> Result<String> {
    let mut config = Config {
        language: Language::C,
        style: Style::Tag,
        header: Some(TOP.to_owned()),
        include_guard: Some("SHUNT_CNF_H".to_owned()),
        no_includes: true,
        sys_includes: ["stddef.h", "stdint.h"].map(str::to_owned).into(),
        cpp_compat: true,
        usize_is_size_t: true,
        documentation_style: DocumentationStyle::Doxy,
        line_length: 120,
        tab_width: 4,
        ..Config::default()
    };
    // Those of the crate are promises to C; those beneath it are not.
    config.parse.parse_deps = false;
    let mut text = Vec::new();
    let bindings = Builder::new().with_config(config).with_src(root().join(SOURCES).join("lib.rs")).generate();
    bindings.context("cbindgen")?.write(&mut text);
    // What is said to Rust's programmers only is left out of what C's read.
    let text = String::from_utf8(text)?;
    Ok(without_safety(&text))
}

/// Leaves the sections on safety out of comments.
fn without_safety(text: &str) -> String {
    let (mut kept, mut skipping) = (String::new(), false);
    for line in text.lines() {
        let words = line.trim_start().trim_start_matches('*').trim();
        if words == "# Safety" {
            skipping = true;
            // The empty line before it goes, too.
            if let Some(at) = kept.trim_end().rfind('\n').filter(|_| kept.trim_end().ends_with('*')) {
                kept.truncate(at + 1);
            }
        } else if line.trim() == "*/" {
            skipping = false;
        }
        if !skipping {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn safety_is_for_rust() {
        let text = "/*\n * Opens.\n *\n * # Safety\n * `x` is NULL.\n */\nint f(void);\n";
        assert_eq!(without_safety(text), "/*\n * Opens.\n */\nint f(void);\n");
    }

    #[test]
    fn the_header_is_up_to_date() {
        check().unwrap();
    }
}
