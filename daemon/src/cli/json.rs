//! Keys and values for programs.

use data_encoding::BASE64;
use mesh_client::{Bytes, Revision};
use serde::{Serialize, Serializer};

/// Bytes: a string where they are UTF-8; else in base64, which the field beside says.
#[derive(Serialize, PartialEq, Eq, Debug)]
#[serde(transparent)]
pub(super) struct Text(String);

/// How bytes are written that are not UTF-8.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub(super) enum Encoding {
    Base64,
}

/// A text for the bytes, and their encoding if they are not the text itself.
pub(super) fn text(bytes: &[u8]) -> (Text, Option<Encoding>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Text(text.to_owned()), None),
        Err(_) => (Text(BASE64.encode(bytes)), Some(Encoding::Base64)),
    }
}

/// An item. A revision has 64 bits, more than a JSON number holds everywhere, and so is a string.
#[derive(Serialize, Debug)]
pub(super) struct ItemDocument {
    key: Text,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_encoding: Option<Encoding>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_encoding: Option<Encoding>,
    #[serde(serialize_with = "revision")]
    revision: Revision,
    #[serde(serialize_with = "revision")]
    create_revision: Revision,
    version: u64,
    #[serde(skip_serializing_if = "is_zero")]
    type_tag: u8,
}

impl ItemDocument {
    /// Of a key and what it holds; `value` is absent where only keys were asked for.
    pub(super) fn new(key: &[u8], item: &mesh_client::Item, value: Option<&Bytes>) -> Self {
        let (key, key_encoding) = text(key);
        let (value, value_encoding) = value.map(|value| text(value)).unzip();
        Self {
            key,
            key_encoding,
            value,
            value_encoding: value_encoding.flatten(),
            revision: item.revision,
            create_revision: item.create_revision,
            version: item.version,
            type_tag: item.type_tag,
        }
    }
}

/// A revision as a string.
pub(super) fn revision<S: Serializer>(revision: &Revision, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(revision)
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the serializer's signature")]
const fn is_zero(number: &u8) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_a_string_or_say_that_they_are_base64() {
        assert_eq!(text("grün".as_bytes()), (Text("grün".into()), None));
        assert_eq!(text(&[0xff, 0]), (Text("/wA=".into()), Some(Encoding::Base64)));
        let item = mesh_client::Item {
            value: Bytes::from_static(&[0xff]),
            revision: Revision(u64::MAX),
            create_revision: Revision(1),
            version: 2,
            type_tag: 0,
        };
        let written = serde_json::to_string(&ItemDocument::new(b"k", &item, Some(&item.value))).unwrap();
        let expected = r#"{"key":"k","value":"/w==","value_encoding":"base64","revision":"18446744073709551615","create_revision":"1","version":2}"#;
        assert_eq!(written, expected);
        let keys_only = serde_json::to_string(&ItemDocument::new(b"k", &item, None)).unwrap();
        assert!(!keys_only.contains("value"));
    }
}
