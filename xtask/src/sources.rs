// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What every source file must look like: a licence line, a bearable length, `unsafe` only where it may be, no sockets,
//! threads or clock in pure crates.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};

use crate::command::{output, program, root};

const LICENCE: &str = "SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause";
/// Lines after which a file is looked at, and after which it must be split.
const LONG: usize = 400;
const TOO_LONG: usize = 1000;

/// The only places for `unsafe` (docs/design.md).
const UNSAFE: [&str; 3] = ["virtqueue/", "backend/src/sys/", "cnf/src/ffi/"];
/// Crates without sockets, threads and clock, and what would be one.
const PURE: [&str; 4] = ["packet/src/", "vhost-user/src/", "switch/src/", "aggregation/src/"];
const IMPURE: [&str; 5] = ["std::net", "std::os::unix::net", "std::thread", "Instant::now", "SystemTime"];

/// Fails with one line per violation; files that are merely long are mentioned.
pub(crate) fn check() -> Result<()> {
    let listed = output(program("git").args(["ls-files", "--cached", "--others", "--exclude-standard"]))?;
    let mut wrong = Vec::new();
    for name in listed.lines().filter(|name| is_source(name)) {
        let Ok(text) = fs::read_to_string(root().join(name)) else { continue }; // deleted, not yet committed
        wrong.extend(faults(name, &text));
        let lines = text.lines().count();
        if lines > LONG && name.ends_with(".rs") {
            eprintln!("note: {name} has {lines} lines (aim: {LONG})");
        }
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    Ok(())
}

/// Files that are written by hand and that have a form of comment.
fn is_source(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(|e| e.to_str()).unwrap_or_default();
    matches!(extension, "rs" | "toml" | "sh" | "yml" | "yaml" | "py" | "lua") || matches!(name, ".ci/run")
}

fn faults(name: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if !text.lines().take(2).any(|line| line.contains(LICENCE)) {
        faults.push(format!("{name}: no '{LICENCE}' in its first lines"));
    }
    if !name.ends_with(".rs") {
        return faults;
    }
    let lines = text.lines().count();
    if lines > TOO_LONG {
        faults.push(format!("{name}: {lines} lines; split it below {TOO_LONG}"));
    }
    let product = text.split("#[cfg(test)]").next().unwrap_or_default();
    let code = |line: &&str| !line.trim_start().starts_with("//");
    if !UNSAFE.iter().any(|place| name.starts_with(place)) {
        let mut blocks = text.lines().filter(code).filter(|l| is_unsafe(l));
        faults.extend(blocks.next().map(|line| format!("{name}: unsafe code may not be here: {}", line.trim())));
    }
    if PURE.iter().any(|place| name.starts_with(place)) && !name.ends_with("tests.rs") {
        let found = IMPURE.iter().filter(|word| product.lines().filter(code).any(|l| l.contains(*word)));
        faults.extend(found.map(|word| format!("{name}: {word} in a pure crate")));
    }
    faults
}

fn is_unsafe(line: &str) -> bool {
    ["unsafe {", "unsafe fn", "unsafe impl", "unsafe trait", "unsafe extern", "#[unsafe("]
        .iter()
        .any(|form| line.contains(form) && !line.contains(&format!("\"{form}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause\n";
    /// In two pieces, so that this file is not found guilty of what it looks for.
    const UNSAFE: &str = concat!("uns", "afe {");

    #[test]
    fn a_good_file_has_no_faults() {
        assert_eq!(faults("switch/src/a.rs", &format!("{HEAD}fn f() {{}}\n")), Vec::<String>::new());
        assert_eq!(
            faults("virtqueue/src/a.rs", &format!("{HEAD}fn f() {{ {UNSAFE} g() }} }}\n")),
            Vec::<String>::new()
        );
    }

    #[test]
    fn each_fault_is_named() {
        let text = format!("fn f() {{ {UNSAFE} g() }} }}\nuse std::thread;\n{}", "\n".repeat(TOO_LONG));
        let found = faults("switch/src/a.rs", &text);
        let has = |part: &str| found.iter().any(|f| f.contains(part));
        assert!(has("SPDX") && has("split it") && has("unsafe code") && has("std::thread"), "{found:?}");
        assert_eq!(found.len(), 4);
    }

    #[test]
    fn tests_of_pure_crates_may_use_threads() {
        let text = format!("{HEAD}fn f() {{}}\n#[cfg(test)]\nmod tests {{ use std::thread; }}\n");
        assert_eq!(faults("packet/src/a.rs", &text), Vec::<String>::new());
    }
}
