// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Conditions with deadlines.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// The time between two looks at a condition.
const POLL: Duration = Duration::from_millis(5);

/// Asks `condition` again and again until it answers `Some`, and returns that; an error of the condition ends the wait at
/// once. Fails, naming `what`, when `limit` has passed.
pub fn wait_for<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if start.elapsed() >= limit {
            bail!("waited {:.1} s in vain for {what}", limit.as_secs_f64());
        }
        thread::sleep(POLL);
    }
}

/// As [`wait_for`], for a condition that is merely true or false.
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    wait_for(what, limit, || Ok(condition()?.then_some(())))
}

/// Waits until `sample` has returned the same value for all of `quiet`, and returns that value.
pub fn wait_settled<T: PartialEq>(
    what: &str,
    quiet: Duration,
    limit: Duration,
    mut sample: impl FnMut() -> Result<T>,
) -> Result<T> {
    let mut last = sample()?;
    let mut since = Instant::now();
    wait_until(what, limit, || {
        let now = sample()?;
        if now != last {
            last = now;
            since = Instant::now();
        }
        Ok(since.elapsed() >= quiet)
    })?;
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_comes_true_ends_the_wait() {
        let mut looks = 0;
        let got = wait_for("the third look", Duration::from_secs(5), || {
            looks += 1;
            Ok((looks == 3).then_some(looks))
        });
        assert_eq!(got.ok(), Some(3));
    }

    #[test]
    fn a_condition_that_never_comes_true_is_named() {
        let got = wait_until("rain", Duration::from_millis(20), || Ok(false));
        assert_eq!(got.map_err(|e| e.to_string()), Err("waited 0.0 s in vain for rain".to_owned()));
    }

    #[test]
    fn a_settled_value_is_the_last_one() {
        let mut next = 0;
        let got = wait_settled("the counter", Duration::from_millis(30), Duration::from_secs(5), || {
            next = (next + 1).min(4);
            Ok(next)
        });
        assert_eq!(got.ok(), Some(4));
    }
}
