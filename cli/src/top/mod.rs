// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `shunt top`: what a node counts, as rates, every second.
//!
//! On a terminal the table is redrawn in place and `q` or ctrl-c ends it; a node that goes away is waited for. Elsewhere
//! each table is printed below the last, so that it can be logged or piped.

mod rates;
mod screen;

use std::time::{Duration, Instant};

use backend::stats::Stats;

use self::screen::{Screen, Wait};
use crate::client::{Client, Control};
use crate::output::print;

/// What is asked: no flows, which are not shown, and cost the workers a walk over all of them.
const PATH: &str = "/stats?policies=false";
/// Time between two tables.
const INTERVAL: Duration = Duration::from_secs(1);

/// Shows what a running node does, every second; q ends it
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// End after so many tables
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    #[command(flatten)]
    control: Control,
}

/// Shows tables until told to stop.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let client = Client::new(&args.control)?;
    // The first answer comes before the screen is touched: a node that is not there is an ordinary error.
    let mut last: Stats = client.get(PATH)?;
    let mut screen = Screen::open()?;
    if screen.is_terminal() {
        screen.show(&rates::render(&last, &last))?;
    }
    let mut next = Instant::now();
    for _ in 0..args.count.unwrap_or(u64::MAX) {
        next = Instant::now().max(next + INTERVAL);
        if screen.wait_until(next)? == Wait::Quit {
            break;
        }
        match client.get::<Stats>(PATH) {
            Ok(now) => {
                screen.show(&rates::render(&last, &now))?;
                last = now;
            }
            Err(error) if screen.is_terminal() => screen.show(&format!("{error}\n"))?,
            Err(error) => {
                drop(screen);
                return Err(error.into());
            }
        }
    }
    drop(screen);
    print("")
}
