// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Every way in which a policy document can be refused.

use std::fmt;

use crate::model::{ActionError, GroupError, ResourceError};
use crate::name::BadName;
use crate::text::TextError;

/// What is wrong with a document, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct DocumentError {
    /// The line, from 1, where that is known: of TOML.
    pub line: Option<usize>,
    /// The object, by its path: `layer acl / group infra / rule ssh`. Empty: the document itself.
    pub object: String,
    /// The key, by its path below the object: `match.dst_port`. Empty: the object itself.
    pub field: String,
    /// What is wrong.
    pub problem: Box<Problem>,
    /// Where it stood, in bytes from the beginning of the text.
    pub(super) at: Option<usize>,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// An action that does not hold together.
    #[error("{}", after_subject(.0))]
    Action(#[from] ActionError),
    /// Text that is not what its key takes.
    #[error("{found:?} is not {wanted}")]
    Bad {
        /// The text.
        found: String,
        /// What would be.
        wanted: &'static str,
    },
    /// Two objects of one name.
    #[error("it is there twice")]
    Duplicate,
    /// Keys of which one excludes the other, or one of which must be there.
    #[error("one of {} must be there, and no more than one", Choices(.0))]
    ExactlyOne(&'static [&'static str]),
    /// A group that does not hold together.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// A key that must be there.
    #[error("{0:?} is missing")]
    Missing(&'static str),
    /// No name.
    #[error("it is no name: {0}")]
    Name(#[from] BadName),
    /// A name that another one was given for.
    #[error("it is {found:?} here and {expected:?} in the path")]
    OtherName {
        /// What the body says.
        found: String,
        /// What the path says.
        expected: String,
    },
    /// A number out of range.
    #[error("{found} is not between {min} and {max}")]
    OutOfRange {
        /// The number.
        found: i64,
        /// The least.
        min: i64,
        /// The greatest.
        max: i64,
    },
    /// A key that makes sense with another one only.
    #[error("it is for {0} only")]
    Pointless(&'static str),
    /// A resource that does not hold together.
    #[error(transparent)]
    Resource(#[from] ResourceError),
    /// Not TOML, or not JSON.
    #[error("not valid {format}: {message}")]
    Syntax {
        /// What it should have been.
        format: &'static str,
        /// What its parser says.
        message: String,
    },
    /// A condition that cannot be read.
    #[error("{}", after_subject(.0))]
    Text(#[from] TextError),
    /// A value of another type.
    #[error("it is {found}, not {wanted}")]
    Type {
        /// What it is.
        found: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
    /// A key that does not exist.
    #[error("unknown key {key:?}; known keys: {}", List(known))]
    UnknownKey {
        /// The key.
        key: String,
        /// Those that exist.
        known: &'static [&'static str],
    },
    /// A word that is none of those known.
    #[error("{found:?} is not {}", Choices(known))]
    UnknownValue {
        /// The word.
        found: String,
        /// Those known.
        known: &'static [&'static str],
    },
}

impl DocumentError {
    pub(super) fn at(at: Option<usize>, problem: Problem) -> Self {
        Self { line: None, object: String::new(), field: String::new(), problem: Box::new(problem), at }
    }

    /// With the line of the text in which it stands.
    pub(super) fn in_text(self, text: &str) -> Self {
        let line = self.at.map(|at| text.bytes().take(at).filter(|byte| *byte == b'\n').count().saturating_add(1));
        Self { line, ..self }
    }
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        for part in [&self.object, &self.field] {
            if !part.is_empty() {
                write!(f, "{part}: ")?;
            }
        }
        write!(f, "{}", self.problem)
    }
}

/// A message that begins with its subject, which is part of the path here.
fn after_subject(error: &impl ToString) -> String {
    let message = error.to_string();
    match message.split_once(": ") {
        Some((subject, rest)) if subject.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric()) => rest.to_owned(),
        _ => message,
    }
}

/// `"a", "b"`.
struct List(&'static [&'static str]);

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, word) in self.0.iter().enumerate() {
            write!(f, "{}{word:?}", if at == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// `"a", "b" or "c"`.
struct Choices<'a>(&'a [&'static str]);

impl fmt::Display for Choices<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, word) in self.0.iter().enumerate() {
            let join = match at {
                0 => "",
                _ if at.saturating_add(1) == self.0.len() => " or ",
                _ => ", ",
            };
            write!(f, "{join}{word:?}")?;
        }
        Ok(())
    }
}
