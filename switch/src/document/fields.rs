// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A typed look at the tables of a document; errors know their object, key and place.

use std::borrow::Cow;
use std::fmt::Write;
use std::str::FromStr;

use super::error::{DocumentError, Problem};
use super::node::{Member, Node, Value};
use crate::Name;

/// Where in a document something is: what it is in, and what it is there.
#[derive(Clone, Copy)]
pub(super) struct Place<'p> {
    parent: Option<&'p Self>,
    part: Part<'p>,
}

#[derive(Clone, Copy)]
enum Part<'p> {
    /// The document itself.
    Root,
    /// A layer, group, rule or resource of this name.
    Object(&'static str, &'p str),
    Key(&'p str),
}

/// A table with the keys that it may have.
#[derive(Clone, Copy)]
pub(super) struct Fields<'n, 'p> {
    members: &'n [Member<'n>],
    at: Option<usize>,
    place: &'p Place<'p>,
}

impl<'p> Place<'p> {
    pub(super) const ROOT: Place<'static> = Place { parent: None, part: Part::Root };

    pub(super) const fn object(&'p self, kind: &'static str, name: &'p str) -> Self {
        Self { parent: Some(self), part: Part::Object(kind, name) }
    }

    pub(super) const fn key(&'p self, key: &'p str) -> Self {
        Self { parent: Some(self), part: Part::Key(key) }
    }

    /// The error that there is a problem here.
    pub(super) fn error(&self, at: Option<usize>, problem: impl Into<Problem>) -> DocumentError {
        let mut error = DocumentError::at(at, problem.into());
        self.write(&mut error.object, &mut error.field);
        error
    }

    fn write(&self, object: &mut String, field: &mut String) {
        if let Some(parent) = self.parent {
            parent.write(object, field);
        }
        // Writing to a string cannot fail.
        match self.part {
            Part::Root => {}
            Part::Object(kind, name) => {
                let _ = write!(object, "{}{kind} {name}", if object.is_empty() { "" } else { " / " });
            }
            Part::Key(key) => {
                let _ = write!(field, "{}{key}", if field.is_empty() { "" } else { "." });
            }
        }
    }
}

impl<'n, 'p> Fields<'n, 'p> {
    /// Looks at a table that may have the keys `known` and no others.
    pub(super) fn new(
        node: &'n Node<'n>,
        place: &'p Place<'p>,
        known: &'static [&'static str],
    ) -> Result<Self, DocumentError> {
        let fields = Self { members: table(node, place)?, at: node.at, place };
        fields.only(known)?;
        Ok(fields)
    }

    /// Looks at a table of which the keys are yet to be checked.
    pub(super) fn unchecked(node: &'n Node<'n>, place: &'p Place<'p>) -> Result<Self, DocumentError> {
        Ok(Self { members: table(node, place)?, at: node.at, place })
    }

    /// Refuses keys other than these.
    pub(super) fn only(&self, known: &'static [&'static str]) -> Result<(), DocumentError> {
        match self.members.iter().find(|member| !known.contains(&&*member.key)) {
            Some(member) => {
                Err(self.place.error(member.at, Problem::UnknownKey { key: member.key.to_string(), known }))
            }
            None => Ok(()),
        }
    }

    pub(super) const fn members(&self) -> &'n [Member<'n>] {
        self.members
    }

    pub(super) fn get(&self, key: &str) -> Option<&'n Node<'n>> {
        self.members.iter().find(|member| member.key == key).map(|member| &member.node)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// A problem with this table.
    pub(super) fn error(&self, problem: impl Into<Problem>) -> DocumentError {
        self.place.error(self.at, problem)
    }

    /// A problem with what a key says.
    pub(super) fn fault(&self, key: &str, problem: impl Into<Problem>) -> DocumentError {
        let at = self.members.iter().find(|member| member.key == key).map_or(self.at, |member| member.at);
        self.place.key(key).error(at, problem)
    }

    pub(super) fn required<T>(&self, key: &'static str, value: Option<T>) -> Result<T, DocumentError> {
        value.ok_or_else(|| self.error(Problem::Missing(key)))
    }

    pub(super) fn truth(&self, key: &'static str) -> Result<Option<bool>, DocumentError> {
        match self.get(key) {
            None => Ok(None),
            Some(Node { value: Value::Truth(truth), .. }) => Ok(Some(*truth)),
            Some(node) => Err(self.mistyped(key, node, "true or false")),
        }
    }

    pub(super) fn integer<T: TryFrom<i64>>(&self, key: &str, min: i64, max: i64) -> Result<Option<T>, DocumentError> {
        let Some(node) = self.get(key) else { return Ok(None) };
        let Value::Integer(found) = node.value else { return Err(self.mistyped(key, node, "a whole number")) };
        match T::try_from(found) {
            Ok(number) if (min..=max).contains(&found) => Ok(Some(number)),
            _ => Err(self.fault(key, Problem::OutOfRange { found, min, max })),
        }
    }

    pub(super) fn u32(&self, key: &'static str) -> Result<Option<u32>, DocumentError> {
        self.integer(key, 0, u32::MAX.into())
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'n str>, DocumentError> {
        self.get(key).map(|node| self.text_of(key, node)).transpose()
    }

    pub(super) fn name(&self, key: &str) -> Result<Option<Name>, DocumentError> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        Name::new(text).map(Some).map_err(|bad| self.fault(key, bad))
    }

    /// One of several words.
    pub(super) fn word<T: Copy>(
        &self,
        key: &str,
        known: &'static [&'static str],
        meanings: &[T],
    ) -> Result<Option<T>, DocumentError> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        match known.iter().zip(meanings).find(|(word, _)| **word == text) {
            Some((_, meaning)) => Ok(Some(*meaning)),
            None => Err(self.fault(key, Problem::UnknownValue { found: text.to_owned(), known })),
        }
    }

    /// What its text stands for.
    pub(super) fn parsed<T: FromStr>(&self, key: &str, wanted: &'static str) -> Result<Option<T>, DocumentError> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        self.parse(key, text, wanted).map(Some)
    }

    /// What each text of a list stands for; one text is a list of one.
    pub(super) fn all<T: FromStr>(&self, key: &str, wanted: &'static str) -> Result<Option<Vec<T>>, DocumentError> {
        let Some(node) = self.get(key) else { return Ok(None) };
        let texts = items(node).iter().map(|item| self.parse(key, self.text_of(key, item)?, wanted));
        texts.collect::<Result<_, _>>().map(Some)
    }

    /// Whether a key says nothing, so that a table beside it is the only one.
    pub(super) fn exactly_one(&self, keys: &'static [&'static str]) -> Result<(), DocumentError> {
        if keys.iter().filter(|key| self.has(key)).count() == 1 {
            return Ok(());
        }
        Err(self.error(Problem::ExactlyOne(keys)))
    }

    pub(super) fn mistyped(&self, key: &str, node: &Node<'_>, wanted: &'static str) -> DocumentError {
        self.fault(key, Problem::Type { found: node.kind(), wanted })
    }

    fn parse<T: FromStr>(&self, key: &str, text: &str, wanted: &'static str) -> Result<T, DocumentError> {
        text.trim().parse().map_err(|_| self.fault(key, Problem::Bad { found: text.to_owned(), wanted }))
    }

    fn text_of<'a>(&self, key: &str, node: &'a Node<'a>) -> Result<&'a str, DocumentError> {
        match &node.value {
            Value::Text(text) => Ok(text),
            _ => Err(self.mistyped(key, node, "a string")),
        }
    }
}

/// The items of a list; what is no list is one of one item.
pub(super) fn items<'n>(node: &'n Node<'n>) -> &'n [Node<'n>] {
    match &node.value {
        Value::List(items) => items,
        _ => std::slice::from_ref(node),
    }
}

/// The text of a string or a number: `dst_port = 80`.
pub(super) fn plain<'n>(node: &'n Node<'n>) -> Option<Cow<'n, str>> {
    match &node.value {
        Value::Text(text) => Some(Cow::Borrowed(text)),
        Value::Integer(number) => Some(number.to_string().into()),
        _ => None,
    }
}

fn table<'n>(node: &'n Node<'n>, place: &Place<'_>) -> Result<&'n [Member<'n>], DocumentError> {
    match &node.value {
        Value::Table(members) => Ok(members),
        _ => Err(place.error(node.at, Problem::Type { found: node.kind(), wanted: "a table" })),
    }
}
