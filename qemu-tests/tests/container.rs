// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The container image of the SDK's examples, as far as it can be had without a container engine: the programs are built
//! with the recipe's own words, laid into an empty root with what the recipe copies and nothing else, and run there as its
//! user, in namespaces of their own, with the node's sockets bound into them.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use harness::node::{Node, NodeConfig, target_dir};
use harness::process::{Process, run};
use harness::scenario::{self, WorkDir};
use harness::transfer;

/// What the recipe says.
#[derive(Debug, Default)]
struct Recipe {
    env: Vec<String>,
    build: Vec<String>,
    /// From the workspace to the image.
    copies: Vec<[PathBuf; 2]>,
    user: String,
    entry: String,
}

impl Recipe {
    fn read() -> Result<Self> {
        let text = fs::read_to_string(root().join("cnf/container/Containerfile"))?;
        let mut recipe = Self::default();
        for line in text.lines() {
            let (word, rest) = line.split_once(' ').unwrap_or_default();
            match word {
                "ENV" => recipe.env.push(rest.replace('"', "")),
                "RUN" => recipe.build = rest.split_whitespace().map(str::to_owned).collect(),
                "COPY" if rest.starts_with("--from=build ") => {
                    let paths: Vec<&str> = rest.split_whitespace().skip(1).collect();
                    let [from, to] = paths[..] else { anyhow::bail!("not one file to one place: {line}") };
                    let within = |path: &str, top: &str| Path::new(path).strip_prefix(top).map(Path::to_owned);
                    recipe.copies.push([within(from, "/src/target")?, within(to, "/")?]);
                }
                "USER" => rest.clone_into(&mut recipe.user),
                "ENTRYPOINT" => recipe.entry = rest.trim_matches(['[', ']', '"']).to_owned(),
                _ => {}
            }
        }
        ensure!(recipe.build.first().is_some_and(|word| word == "cargo") && recipe.copies.len() == 3, "{recipe:?}");
        Ok(recipe)
    }

    /// Builds the programs and lays them into an empty root.
    fn make(&self, image: &Path) -> Result<()> {
        let target = target_dir()?;
        let mut argv: Vec<OsString> = vec!["env".into(), "-C".into(), root().into()];
        argv.extend(self.env.iter().map(Into::into));
        argv.push(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        argv.extend(self.build.iter().skip(1).map(Into::into));
        argv.extend(["--quiet".into(), "--target-dir".into(), target.clone().into()]);
        run(&argv)?;
        for [from, to] in &self.copies {
            let to = image.join(to);
            fs::create_dir_all(to.parent().context("no directory")?)?;
            fs::copy(target.join(from), to).with_context(|| format!("{} was not built", from.display()))?;
        }
        fs::create_dir_all(image.join("run/shunt"))?;
        Ok(())
    }

    /// The command line of a program in its container.
    fn command(&self, image: &Path, sockets: &Path, program: &str, args: &[&str]) -> Vec<OsString> {
        let script = "mount --bind \"$1\" \"$2/run/shunt\" && mount -o remount,bind,ro \"$2/run/shunt\" && \
                      user=$3 image=$2 && shift 3 && exec chroot --userspec=\"$user\" --groups= \"$image\" \"$@\"";
        let mut argv: Vec<OsString> =
            ["unshare", "--mount", "--net", "--ipc", "--uts", "--pid", "--fork"].map(Into::into).into();
        argv.extend(["--kill-child", "sh", "-ec", script, "sh"].map(Into::into));
        argv.extend([sockets.into(), image.into(), (&self.user).into(), program.into()]);
        argv.extend(args.iter().map(Into::into));
        argv
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All files below a directory.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    Ok(found)
}

fn forwards(work: &WorkDir) -> Result<()> {
    let recipe = Recipe::read()?;
    let image = work.file("image");
    recipe.make(&image)?;
    ensure!(files(&image)?.len() == recipe.copies.len(), "more in the image than the recipe copies");

    let ports = ["p0", "p1", "p2", "p3"];
    let mut config = NodeConfig::bridge(&ports);
    config.crossconnects = vec![["p0", "p1"].map(str::to_owned), ["p2", "p3"].map(str::to_owned)];
    let mut node = Node::start(work, &config)?;
    for port in ports {
        // As the recipe's README says: whoever connects must be able to write to it.
        fs::set_permissions(node.socket(port), fs::Permissions::from_mode(0o666))?;
    }
    // pktgen, wire, l2fwd, wire, echo: three containers.
    let start = |name: &str, program: &str, args: &[&str]| {
        Process::spawn(work, name, &recipe.command(&image, work.path(), program, args))
    };
    let mut echo = start("echo", "/bin/echo", &["--aggregate", "/run/shunt/p3.sock"])?;
    let mut forwarder = start("l2fwd", &recipe.entry, &["--aggregate", "/run/shunt/p1.sock", "/run/shunt/p2.sock"])?;
    node.wait_up(&["p1", "p2", "p3"])?;
    let args = ["/run/shunt/p0.sock", "--aggregate", "--count", "300000", "--sizes", "60,1514,300"];
    let mut generator = start("pktgen", "/bin/pktgen", &args)?;
    ensure!(generator.wait_exit(transfer::LIMIT)?.success(), "{}", generator.printed_since(0)?);
    let text = generator.printed_since(0)?;
    ensure!(text.contains("300000 packets verified"), "{text}");
    for process in [&mut echo, &mut forwarder] {
        ensure!(process.is_running(), "{} ended early: {}", process.name(), process.printed_since(0)?);
        process.kill()?;
    }
    node.terminate()
}

#[test]
fn the_image_needs_nothing_but_sockets() {
    scenario::run(forwards);
}
