//! Values that are checked while they are read, so that the error knows where the value stands.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error};

use crate::bytesize::ByteSize;
use crate::duration;

/// The shortest interval: a monitor must not harm what it watches.
pub(crate) const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// An interval of at least a second.
pub(crate) mod interval {
    use super::*;
    pub(crate) use crate::duration::serialize;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        let span = duration::deserialize(d)?;
        if span < SHORTEST_INTERVAL {
            return Err(D::Error::custom(format_args!(
                "an interval must be at least 1s, but this is {}",
                duration::format(span)
            )));
        }
        Ok(span)
    }
}

/// A time limit longer than nothing.
pub(crate) mod limit {
    use super::*;
    pub(crate) use crate::duration::serialize;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        let span = duration::deserialize(d)?;
        if span.is_zero() {
            return Err(D::Error::custom("a time limit must be longer than 0"));
        }
        Ok(span)
    }
}

macro_rules! optional {
    ($name:ident, $with:literal) => {
        pub(crate) mod $name {
            use super::*;
            pub(crate) use crate::duration::optional::serialize;

            #[derive(Deserialize)]
            struct Wrapped(#[serde(with = $with)] Duration);

            pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
                d: D,
            ) -> Result<Option<Duration>, D::Error> {
                Ok(Option::<Wrapped>::deserialize(d)?.map(|wrapped| wrapped.0))
            }
        }
    };
}

optional!(optional_interval, "super::interval");
optional!(optional_limit, "super::limit");

/// A count of at least one.
pub(crate) fn count<'de, D: Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
    let count = u32::deserialize(d)?;
    if count == 0 {
        return Err(D::Error::custom("this must be at least 1"));
    }
    Ok(count)
}

/// The same, where it may be left out.
pub(crate) fn optional_count<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u32>, D::Error> {
    #[derive(Deserialize)]
    struct Wrapped(#[serde(deserialize_with = "count")] u32);
    Ok(Option::<Wrapped>::deserialize(d)?.map(|wrapped| wrapped.0))
}

/// A size of at least one byte.
pub(crate) fn size<'de, D: Deserializer<'de>>(d: D) -> Result<ByteSize, D::Error> {
    let size = ByteSize::deserialize(d)?;
    if size.0 == 0 {
        return Err(D::Error::custom("a size must be at least 1 byte"));
    }
    Ok(size)
}

/// The same, where it may be left out.
pub(crate) fn optional_size<'de, D: Deserializer<'de>>(d: D) -> Result<Option<ByteSize>, D::Error> {
    #[derive(Deserialize)]
    struct Wrapped(#[serde(deserialize_with = "size")] ByteSize);
    Ok(Option::<Wrapped>::deserialize(d)?.map(|wrapped| wrapped.0))
}

fn within<E: Error>(value: f64, top: f64) -> Result<f64, E> {
    if value > 0.0 && value <= top {
        return Ok(value);
    }
    Err(E::custom(format_args!("this must be above 0 and at most {top}, but is {value}")))
}

/// A percentage above 0 and up to 100.
pub(crate) fn percent<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
    within(f64::deserialize(d)?, 100.0)
}

/// A share above 0 and up to 1.
pub(crate) fn share<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
    within(f64::deserialize(d)?, 1.0)
}

/// The same, where it may be left out.
pub(crate) fn optional_share<'de, D: Deserializer<'de>>(d: D) -> Result<Option<f64>, D::Error> {
    #[derive(Deserialize)]
    struct Wrapped(#[serde(deserialize_with = "share")] f64);
    Ok(Option::<Wrapped>::deserialize(d)?.map(|wrapped| wrapped.0))
}
