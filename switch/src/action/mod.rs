// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How actions are carried out: each looks at a packet's [`Situation`] and yields a [`Deed`], a header
//! transposition and what is to be remembered, or says why the packet stops here. None changes anything.
//!
//! | file | actions |
//! |---|---|
//! | `translate.rs` | nat, balance; what makes one tuple another |
//! | `tunnel.rs` | encap, decap |
//! | here | the others, which are a line each |

mod translate;
mod tunnel;

use core::net::IpAddr;
use packet::transpose::{Transposition, Value};
use packet::{DropCause, Field};

pub(crate) use translate::change;

use crate::Name;
use crate::compile::Snapshot;
use crate::condition::Key;
use crate::flow::connection::Entry;
use crate::flow::connections::Connections;
use crate::flow::tuple::Tuple;
use crate::model::{Action, Answer, Direction, Stateful};

/// A packet in front of a layer, and all that a rule may want to know about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Situation<'a> {
    /// As the layers before left it.
    pub(crate) key: &'a Key,
    pub(crate) direction: Direction,
    pub(crate) tuple: Option<Tuple>,
    pub(crate) standing: Standing,
    pub(crate) snapshot: &'a Snapshot,
    /// All connections of the port: whose names are taken.
    pub(crate) connections: &'a Connections,
    pub(crate) now_ns: u64,
}

/// What a packet is to connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It belongs to none, and may begin one.
    Beginning,
    /// It goes the way of the one that began its connection, of which the layer may remember something.
    Initiator(Option<Entry>),
    /// It belongs to a connection of which the layer remembers nothing.
    Responder,
    /// TCP that can begin nothing, and belongs to nothing.
    Stray,
    /// Connections are not for such packets.
    Stateless,
}

/// What a rule does with the packet, which goes on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deed {
    /// Boxed, because most have none.
    pub(crate) transposition: Option<Box<Transposition>>,
    /// A register's number and new value.
    pub(crate) register: Option<(u8, u32)>,
    pub(crate) remember: Option<Stateful>,
    /// The address and port were taken from a list.
    pub(crate) from_ranges: bool,
    /// The port that it goes to; `None` inside: where it came from.
    #[expect(clippy::option_option, reason = "no hairpin, or one to the port it came from, or one to another")]
    pub(crate) hairpin: Option<Option<Name>>,
    /// What was looked up.
    pub(crate) lookup: Option<Box<Lookup>>,
}

/// Why a packet does not go on.
#[derive(Clone, Debug)]
pub(crate) enum Stop {
    Drop(DropCause, Option<Box<Lookup>>),
    /// What its connection was given is not allowed any more.
    Ended,
    /// An answer is needed first.
    Pending(Request),
}

/// A question to the controller of a resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// The resource.
    pub resource: Name,
    /// Whose it is.
    pub controller: Name,
    /// What of it is missing.
    pub address: IpAddr,
}

/// What a map said: a plan holds as long as it says the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Lookup {
    pub(crate) resource: Name,
    pub(crate) address: IpAddr,
    pub(crate) answer: Option<Answer>,
}

/// What an action does with a packet.
pub(crate) fn act(action: &Action, at: &Situation<'_>) -> Result<Deed, Stop> {
    match action {
        Action::Allow { stateful } => Ok(Deed { remember: *stateful, ..Deed::default() }),
        Action::Balance(balance) => translate::balance(balance, at),
        Action::Block { cause } => Err(Stop::drop(*cause)),
        Action::Count => Ok(Deed::default()),
        Action::Decap => tunnel::decap(),
        Action::Dscp(dscp) => Ok(set(Field::Dscp, Value::Number((*dscp).into()))),
        Action::Ecmp(routers) => {
            let tuple = at.tuple.unwrap_or(Tuple::NOBODY);
            // A router is known by its address, so that one that goes moves only its own flows.
            let router = best(routers, |router| tuple.choice(u64::from_be_bytes(padded(router.0))));
            router.map(|router| set(Field::EthDst, Value::from(*router))).ok_or(Stop::drop(DropCause::Untransposable))
        }
        Action::Encap(encap) => tunnel::encap(encap, at),
        Action::Hairpin { to } => Ok(Deed { hairpin: Some(to.clone()), ..Deed::default() }),
        Action::Nat(nat) => translate::nat(nat, at),
        Action::SetRegister { register, value } => Ok(Deed { register: Some((*register, *value)), ..Deed::default() }),
        Action::Transpose { transposition } => {
            Ok(Deed { transposition: Some(Box::new((**transposition).clone())), ..Deed::default() })
        }
    }
}

impl Stop {
    const fn drop(cause: DropCause) -> Self {
        Self::Drop(cause, None)
    }
}

fn set(field: Field, value: Value) -> Deed {
    Deed { transposition: Some(Box::new(Transposition::default().with(field, value))), ..Deed::default() }
}

/// The one with the highest score (rendezvous hashing).
fn best<T>(all: &[T], score: impl Fn(&T) -> u64) -> Option<&T> {
    all.iter().max_by_key(|one| score(one))
}

const fn padded([a, b, c, d, e, f]: [u8; 6]) -> [u8; 8] {
    [0, 0, a, b, c, d, e, f]
}

/// A number that stands for an address and port, the same everywhere.
fn number_of(address: IpAddr, port: u16) -> u64 {
    let (bits, version) = match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 4),
        IpAddr::V6(address) => (address.to_bits(), 6),
    };
    Tuple { source: bits, version, source_port: port, ..Tuple::NOBODY }.choice(0)
}
