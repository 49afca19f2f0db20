// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What TOML and JSON have in common: values, with the place in the text where each stood.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{DocumentError, Problem};

/// A value and where it stood.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node<'a> {
    /// Bytes from the beginning of the text, where that is known.
    pub(super) at: Option<usize>,
    pub(super) value: Value<'a>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Truth(bool),
    Integer(i64),
    Text(Cow<'a, str>),
    List(Vec<Node<'a>>),
    Table(Vec<Member<'a>>),
    /// What no key takes, in words.
    Unusable(&'static str),
}

/// A key, where it stood, and its value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Member<'a> {
    pub(super) key: Cow<'a, str>,
    pub(super) at: Option<usize>,
    pub(super) node: Node<'a>,
}

/// Reads TOML.
pub(super) fn from_toml(text: &str) -> Result<Node<'_>, DocumentError> {
    let root = DeTable::parse(text).map_err(|error| {
        let message = error.message().trim().replace('\n', ", ");
        let problem = Problem::Syntax { format: "TOML", message };
        DocumentError::at(error.span().map(|span| span.start), problem)
    })?;
    let at = Some(root.span().start);
    Ok(Node { at, value: Value::Table(members(root.into_inner())) })
}

/// Reads JSON.
pub(super) fn from_json(text: &[u8]) -> Result<Node<'_>, DocumentError> {
    serde_json::from_slice(text).map_err(|error| {
        let problem = Problem::Syntax { format: "JSON", message: error.to_string() };
        DocumentError::at(None, problem)
    })
}

fn members(table: DeTable<'_>) -> Vec<Member<'_>> {
    let members = table.into_iter().map(|(key, value)| {
        let at = Some(key.span().start);
        Member { key: key.into_inner(), at, node: node(value) }
    });
    members.collect()
}

fn node(value: Spanned<DeValue<'_>>) -> Node<'_> {
    let at = Some(value.span().start);
    let value = match value.into_inner() {
        DeValue::String(text) => Value::Text(text),
        DeValue::Integer(digits) => i64::from_str_radix(digits.as_str(), digits.radix())
            .map_or(Value::Unusable("a number beyond 64 bits"), Value::Integer),
        DeValue::Float(_) => Value::Unusable("a fraction"),
        DeValue::Boolean(truth) => Value::Truth(truth),
        DeValue::Datetime(_) => Value::Unusable("a date"),
        DeValue::Array(items) => Value::List(items.into_iter().map(node).collect()),
        DeValue::Table(table) => Value::Table(members(table)),
    };
    Node { at, value }
}

impl<'a> Node<'a> {
    pub(super) fn text(text: impl Into<Cow<'a, str>>) -> Self {
        Value::Text(text.into()).into()
    }

    pub(super) fn texts<T: Into<Cow<'a, str>>>(texts: impl IntoIterator<Item = T>) -> Self {
        Value::List(texts.into_iter().map(Self::text).collect()).into()
    }

    pub(super) fn integer(number: impl Into<i64>) -> Self {
        Value::Integer(number.into()).into()
    }

    pub(super) fn table(members: impl IntoIterator<Item = (&'a str, Self)>) -> Self {
        let members = members.into_iter().map(|(key, node)| Member { key: key.into(), at: None, node });
        Value::Table(members.collect()).into()
    }

    /// What it is, in words.
    pub(super) const fn kind(&self) -> &'static str {
        match self.value {
            Value::Truth(_) => "true or false",
            Value::Integer(_) => "a whole number",
            Value::Text(_) => "a string",
            Value::List(_) => "an array",
            Value::Table(_) => "a table",
            Value::Unusable(what) => what,
        }
    }
}

impl<'a> From<Value<'a>> for Node<'a> {
    fn from(value: Value<'a>) -> Self {
        Self { at: None, value }
    }
}

impl Serialize for Node<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.value {
            Value::Truth(truth) => serializer.serialize_bool(*truth),
            Value::Integer(number) => serializer.serialize_i64(*number),
            Value::Text(text) => serializer.serialize_str(text),
            Value::List(items) => serializer.collect_seq(items),
            Value::Table(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                members.iter().try_for_each(|member| map.serialize_entry(&member.key, &member.node))?;
                map.end()
            }
            Value::Unusable(_) => serializer.serialize_unit(),
        }
    }
}

impl<'de> Deserialize<'de> for Node<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Anything).map(Self::from)
    }
}

struct Anything;

impl<'de> Visitor<'de> for Anything {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Self::Value, E> {
        Ok(Value::Truth(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Value::Integer(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(number).map_or(Value::Unusable("a number beyond 64 bits"), Value::Integer))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Value::Unusable("a fraction"))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Value::Unusable("null"))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut members: Vec<Member<'de>> = Vec::new();
        while let Some(Key(key)) = access.next_key()? {
            members.push(Member { key, at: None, node: access.next_value()? });
        }
        // JSON itself has nothing against two members of one name; which of them was meant would be a guess.
        let mut keys = HashSet::with_capacity(members.len());
        match members.iter().find(|member| !keys.insert(&member.key)) {
            Some(member) => Err(A::Error::custom(format_args!("key {:?} is there twice", member.key))),
            None => Ok(Value::Table(members)),
        }
    }
}

/// A key, borrowed where it stands in the text as it is.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_str(Anything)? {
            Value::Text(text) => Ok(Self(text)),
            _ => Err(D::Error::custom("a key is a string")),
        }
    }
}
