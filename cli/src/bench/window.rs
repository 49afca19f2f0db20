// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How many packets of a lane may be on their way: no more than the other side has receive buffers.
//!
//! A packet that has not arrived though later ones have may have been overtaken, and still wants its buffer: a switch that
//! sorts its bursts by flow does that all the time. It is taken for lost only after some time.

use super::stamp::Account;

/// What is known of the packets that were sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Window {
    /// Packets that may be on their way.
    most: u64,
    /// Packets that were overtaken for so long that they are lost.
    lost: u64,
    /// The number before which nothing more is expected.
    given_up: u64,
    /// What had arrived, and was overtaken, when that was last looked at.
    seen: (u64, u64),
    /// How often all that was on its way was given up because nothing arrived.
    pub(super) stalls: u64,
}

impl Window {
    pub(super) fn new(most: u64) -> Self {
        Self { most: most.max(1), ..Self::default() }
    }

    /// How many more may be sent, after `sent` ones.
    #[inline(always)]
    pub(super) fn room(&self, sent: u64, account: &Account) -> usize {
        let gone = (account.received + self.lost).max(self.given_up);
        usize::try_from(self.most.saturating_sub(sent.saturating_sub(gone))).unwrap_or(0)
    }

    /// Time has passed since this was called last: what was overtaken then and has not arrived since is lost; and so is
    /// everything, if there is no room and nothing has arrived since.
    pub(super) fn look(&mut self, sent: u64, account: &Account) {
        let overtaken = account.due.saturating_sub(account.received);
        let (received_then, overtaken_then) = self.seen;
        self.lost = overtaken.min(overtaken_then);
        if account.received == received_then && self.room(sent, account) == 0 {
            self.give_up(sent);
            self.stalls += 1;
        }
        self.seen = (account.received, overtaken);
    }

    /// Expects nothing more of what is on its way.
    pub(super) fn give_up(&mut self, sent: u64) {
        self.given_up = sent;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(due: u64, received: u64) -> Account {
        Account { due, received, late: 0 }
    }

    #[test]
    fn what_is_overtaken_keeps_its_place_until_it_is_lost() {
        let mut window = Window::new(10);
        assert_eq!(window.room(0, &account(0, 0)), 10);
        assert_eq!(window.room(10, &account(4, 4)), 4);
        assert_eq!(window.room(10, &account(10, 7)), 7, "three may still come");
        window.look(10, &account(10, 7));
        assert_eq!(window.room(10, &account(10, 7)), 7);
        window.look(10, &account(10, 8));
        assert_eq!(window.room(10, &account(10, 8)), 10, "two were overtaken both times");
        window.look(20, &account(20, 20));
        assert_eq!(window.room(20, &account(20, 20)), 10, "they came after all");
        assert_eq!(window.stalls, 0);
    }

    #[test]
    fn when_nothing_moves_all_is_given_up_and_may_still_arrive() {
        let mut window = Window::new(10);
        window.look(10, &account(0, 0));
        assert_eq!((window.stalls, window.room(10, &account(0, 0))), (1, 10));
        assert_eq!(window.room(20, &account(10, 10)), 0, "late, but there is no more room for that");
        window.look(20, &account(10, 10));
        assert_eq!((window.stalls, window.room(20, &account(15, 15))), (1, 5));
    }
}
