//! Reading JSON that strangers wrote, more strictly than serde's derive does.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// A struct that is read from a JSON object alone.
///
/// What `#[derive(Deserialize)]` makes of a struct takes an array too, by the order of the fields. Read through this,
/// the order stays private. It goes for fields as well: `to: Object<To>`.
///
/// ```
/// use tidings_core::json::Object;
///
/// #[derive(serde::Deserialize)]
/// struct Seat { row: u32 }
///
/// let Object(seat) = serde_json::from_str::<Object<Seat>>(r#"{"row":7}"#)?;
/// assert_eq!(seat.row, 7);
/// assert!(serde_json::from_str::<Object<Seat>>("[7]").is_err());
/// # Ok::<_, serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Fields(PhantomData)).map(Self)
    }
}

struct Fields<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(fields))
    }
}

/// Reads a field that may be absent but, when it is there, must be a `T`: `null` is not taken for absent.
/// For `#[serde(default, deserialize_with = "tidings_core::json::present")]`.
///
/// # Errors
/// When the field is no `T`.
pub fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::value::RawValue;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Outer<'a> {
        #[serde(rename = "in")]
        inner: Option<Object<Inner>>,
        #[serde(borrow, default, deserialize_with = "present")]
        raw: Option<&'a RawValue>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        n: Option<u32>,
    }

    fn read(json: &str) -> serde_json::Result<Object<Outer<'_>>> {
        serde_json::from_str(json)
    }

    #[test]
    fn an_array_is_no_object_at_any_depth() {
        for good in ["{}", r#"{"in":{}}"#, r#"{"in":null}"#, r#" {"x":[1],"in":{"n":1}} "#] {
            assert!(read(good).is_ok(), "{good}");
        }
        for bad in ["[]", "[null,null]", "[{},1]", r#"{"in":[1]}"#, r#"{"in":[]}"#, "null", "1"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_the_struct_says_of_its_fields_holds() {
        assert!(read(r#"{"in":{"n":1,"x":1}}"#).is_err(), "an unknown field");
        assert!(read(r#"{"in":{},"in":{}}"#).is_err(), "a field twice");
        let Object(outer) = read(r#"{"raw": 1.50 ,"in":{"n":3}}"#).expect("it is one");
        assert_eq!(outer.raw.map(RawValue::get), Some("1.50"));
        assert_eq!(outer.inner.and_then(|inner| inner.0.n), Some(3));
    }

    #[test]
    fn null_is_not_absent() {
        let raw = |json| read(json).expect("it is one").0.raw.map(RawValue::get);
        assert_eq!((raw(r#"{"raw":null}"#), raw("{}")), (Some("null"), None));
    }
}
