// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `shunt run`: a node until it is told to stop.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use backend::Node;
use backend::config::{Capability, Config};
use backend::confine::confine;
use backend::control::ControlListener;
use backend::policy::{PolicyStore, tell_events};
use clap::builder::PossibleValuesParser;
use log::LevelFilter;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

/// What tells the node to stop.
const STOP: [i32; 3] = [SIGTERM, SIGINT, SIGHUP];
/// Exit status when a second signal cuts the stopping short.
const IMPATIENT: i32 = 1;

/// What can be logged, from nothing to everything.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Runs a node
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The node's configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// What to log on standard error
    #[arg(long, default_value = "info", value_name = "LEVEL", value_parser = PossibleValuesParser::new(LEVELS))]
    log: String,
}

/// Starts the node and waits for a signal.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let level: LevelFilter = args.log.parse()?;
    env_logger::Builder::new().filter_level(level).try_init().context("cannot log")?;
    let config = Config::load(&args.config)?;
    // From here on a signal stops in order; a second one, while that goes on, at once.
    let mut signals = Signals::new(STOP).context("cannot wait for signals")?;
    let told = Arc::new(AtomicBool::new(false));
    for signal in STOP {
        flag::register_conditional_shutdown(signal, IMPATIENT, Arc::clone(&told)).context("cannot wait for signals")?;
        flag::register(signal, Arc::clone(&told)).context("cannot wait for signals")?;
    }
    raise_descriptor_limit();
    let control = ControlListener::bind(&config.control, &config.controllers)?;
    if config.process.confined {
        let kept: Vec<_> = confine(&config)?.iter().map(Capability::to_string).collect();
        log::info!("confined; capabilities: {}", if kept.is_empty() { "none".to_owned() } else { kept.join(", ") });
    } else {
        log::warn!("not confined: [process] says so");
    }
    let node = Node::start(&config)?;
    let policy = Arc::new(PolicyStore::new(Arc::new(node.handle())));
    let teller = tell_events(node.handle(), Arc::clone(&policy)).context("cannot tell events of policy")?;
    let server = control.serve(Arc::new(node.handle()), policy)?;
    log::info!(
        "shunt {} runs: {} workers, {} ports, control socket {}{}",
        env!("CARGO_PKG_VERSION"),
        config.workers.len(),
        config.ports.len(),
        config.control.socket,
        server.http_address().map(|address| format!(", http://{address}")).unwrap_or_default(),
    );
    if let Some(signal) = signals.forever().next() {
        let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
        log::info!("stopping: {name}");
    }
    server.stop();
    node.stop();
    // It ends with the workers; that it panicked is in the log.
    let _ = teller.join();
    log::info!("stopped");
    Ok(())
}

/// A guest with 128 queue pairs brings some 770 eventfds, and the usual soft limit is 1024 for all guests together.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        log::warn!("the limit of open files stays at {:?}: {error}", limit.current);
    }
}
