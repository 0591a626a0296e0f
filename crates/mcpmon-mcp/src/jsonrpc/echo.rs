//! Knows an answer again.
//!
//! A healthy server answers the same question with the same bytes, but for the id. To take such a
//! body apart again costs more than everything else a check does, and gives what is known already.
//! So a good answer is remembered by where its id stood and by a digest of all the other bytes. A
//! cryptographic one, because no server may be able to write two answers that are taken for one.

use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::Id;

/// Longest whole number there is, in digits.
const DIGITS: usize = 20;

/// One good answer, so that the same one under another id is known again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Echo {
    /// Where the id stood.
    id_at: usize,
    /// Length of all the rest.
    length: usize,
    digest: [u8; 32],
}

impl Echo {
    /// Remembers a body that was read as one good response to `id`; `None` if its id is not spelt
    /// as ours are.
    pub fn of(body: &[u8], id: &Id) -> Option<Self> {
        #[derive(Deserialize)]
        struct Named<'a> {
            #[serde(borrow)]
            id: &'a RawValue,
        }
        let named: Named<'_> = serde_json::from_slice(body).ok()?;
        let mut space = [0; DIGITS];
        let digits = digits(id, &mut space)?;
        let id_at = (named.id.get().as_ptr() as usize).checked_sub(body.as_ptr() as usize)?;
        let rest = rest(body, id_at, digits)?;
        // What follows a number that was read to its end cannot go on with it, so other digits in
        // its place make another whole number, and change nothing else.
        Some(Self { id_at, length: rest.length(), digest: rest.digest() })
    }

    /// Whether `body` answers `id` with the very bytes that are remembered.
    pub fn is_of(&self, body: &[u8], id: &Id) -> bool {
        let mut space = [0; DIGITS];
        digits(id, &mut space)
            .and_then(|digits| rest(body, self.id_at, digits))
            .is_some_and(|rest| rest.length() == self.length && rest.digest() == self.digest)
    }
}

/// Whether an answer is looked at for being one that is remembered.
#[derive(Debug, Clone, Copy, Default)]
pub enum Recall<'a> {
    /// It does not matter.
    #[default]
    No,
    /// Nothing is remembered yet; the answer is to be.
    Learn,
    /// This is what came last.
    Expect(&'a Echo),
}

impl<'a> From<Option<&'a Echo>> for Recall<'a> {
    fn from(echo: Option<&'a Echo>) -> Self {
        echo.map_or(Self::Learn, Self::Expect)
    }
}

/// A body without its id.
struct Rest<'a>(&'a [u8], &'a [u8]);

impl Rest<'_> {
    const fn length(&self) -> usize {
        self.0.len() + self.1.len()
    }

    fn digest(&self) -> [u8; 32] {
        Sha256::new().chain_update(self.0).chain_update(self.1).finalize().into()
    }
}

fn rest<'a>(body: &'a [u8], id_at: usize, digits: &[u8]) -> Option<Rest<'a>> {
    let (before, after) = body.split_at_checked(id_at)?;
    Some(Rest(before, after.strip_prefix(digits)?))
}

/// The decimal digits of an id that is a whole number, which ours are.
fn digits<'a>(id: &Id, space: &'a mut [u8; DIGITS]) -> Option<&'a [u8]> {
    let Id::Number(number) = id else { return None };
    let mut left = number.as_u64()?;
    let mut start = DIGITS;
    loop {
        start -= 1;
        space[start] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            return Some(&space[start..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = r#"{"jsonrpc":"2.0","id":9,"result":{"a":9}}"#;

    #[test]
    fn the_same_answer_under_another_id_is_known_again() {
        let echo = Echo::of(FIRST.as_bytes(), &Id::from(9)).unwrap();
        for (body, id, known) in [
            (r#"{"jsonrpc":"2.0","id":9,"result":{"a":9}}"#, 9, true),
            (r#"{"jsonrpc":"2.0","id":10,"result":{"a":9}}"#, 10, true),
            (r#"{"jsonrpc":"2.0","id":18446744073709551615,"result":{"a":9}}"#, u64::MAX, true),
            (r#"{"jsonrpc":"2.0","id":10,"result":{"a":8}}"#, 10, false),
            (r#"{"jsonrpc":"2.0","id":10,"result":{"a":9}}"#, 1, false),
            (r#"{"jsonrpc":"2.0","id":11,"result":{"a":9}}"#, 10, false),
            (r#"{"jsonrpc":"2.0","id":"10","result":{"a":9}}"#, 10, false),
            (r#"{"jsonrpc":"2.0","id":10.0,"result":{"a":9}}"#, 10, false),
            (r#"{"jsonrpc":"2.0","id":010,"result":{"a":9}}"#, 10, false),
            (r#"{"jsonrpc":"2.0","id":10,"result":{"a":9}} "#, 10, false),
            (r#"{"jsonrpc":"2.0","id":"#, 10, false),
            ("", 10, false),
        ] {
            assert_eq!(echo.is_of(body.as_bytes(), &Id::from(id)), known, "{body}");
        }
    }

    #[test]
    fn wherever_the_id_stands() {
        let body = |id: u64| format!(r#"{{"result":{{"id":7}}, "jsonrpc":"2.0", "id" : {id} }}"#);
        let echo = Echo::of(body(7).as_bytes(), &Id::from(7)).unwrap();
        assert!(echo.is_of(body(1_234).as_bytes(), &Id::from(1_234)));
        assert!(!echo.is_of(body(1_234).as_bytes(), &Id::from(123)));
    }

    #[test]
    fn an_id_in_another_spelling_is_not_remembered() {
        for body in [
            r#"{"jsonrpc":"2.0","id":"9","result":{}}"#,
            r#"{"jsonrpc":"2.0","id":9.0,"result":{}}"#,
            r#"{"jsonrpc":"2.0","result":{}}"#,
        ] {
            let echo = Echo::of(body.as_bytes(), &Id::from(9));
            assert!(echo.is_none_or(|echo| !echo.is_of(FIRST.as_bytes(), &Id::from(9))), "{body}");
        }
        assert_eq!(Echo::of(FIRST.as_bytes(), &Id::from("9")), None);
    }
}
