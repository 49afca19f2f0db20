// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Proof 1 of policy (VF-1, VF-2, VF-11, VF-13): the four controllers of `docs/examples/four-controllers`, by these very
//! files, and four agents with tokens of their own, on two nodes that a veth pair joins. A QEMU guest uses a TCP service of
//! another through its virtual address, which is at a mux (testpmd); answers go straight back.
//!
//! | file | what it holds |
//! |---|---|
//! | `hosts.rs` | the two hosts, their guests, and the agents |
//! | `directory.rs` | the directory's agent answers late, wrongly and never |
//! | `upload.rs` | a connection through the virtual address that goes on for as long as it is let |
//! | `changes.rs` | changes in every layer that are none to the connection; one that it does not survive |
//! | `bill.rs` | what was billed, and what guests counted |

mod bill;
mod changes;
mod directory;
mod hosts;
mod upload;

use anyhow::{Context, ensure};
use harness::scenario;

use hosts::Hosts;
use upload::Upload;

#[test]
fn four_controllers_serve_two_guests() {
    scenario::run(|work| {
        let mut hosts = Hosts::start(work)?;
        changes::nobody_touches_what_is_anothers(&hosts)?;
        directory::answers_late_and_wrongly(&mut hosts).context("late and wrongly")?;
        directory::answers_never(&mut hosts).context("never")?;

        let upload = Upload::begin(&mut hosts)?;
        changes::in_every_layer(&mut hosts, &upload).context("changes in every layer")?;
        changes::only_terminating_rules_stay(&mut hosts, &upload).context("blocked by the infrastructure")?;
        changes::the_customer_withdraws_the_service(&mut hosts, &upload).context("blocked by the customer")?;
        upload.finish(&mut hosts)?;

        bill::is_what_guests_counted(&mut hosts)?;
        bill::drops_are_those_that_were_meant(&hosts)?;
        ensure!(hosts.heard_nothing(&["metering", "acl", "loadbalancer"])?, "misses are the directory's alone");
        hosts.stop()
    });
}
