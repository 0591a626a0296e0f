//! Licence expressions as crates write them: SPDX, and the older `A/B` for "A or B".

use std::iter::Peekable;

/// A licence expression.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Expression {
    /// One licence, with its exception if it has one (`Apache-2.0 WITH LLVM-exception`).
    Licence(String),
    All(Vec<Expression>),
    Any(Vec<Expression>),
}

impl Expression {
    /// Reads an expression.
    ///
    /// # Errors
    ///
    /// What was found where something else had to stand.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut tokens = tokens(text).into_iter().peekable();
        let expression = any(&mut tokens)?;
        match tokens.next() {
            None => Ok(expression),
            Some(token) => Err(format!("`{token}` is left over in `{text}`")),
        }
    }

    /// Whether someone who accepts just these licences may use what stands under it.
    pub(super) fn is_met_by(&self, accepted: &dyn Fn(&str) -> bool) -> bool {
        match self {
            Self::Licence(licence) => accepted(licence),
            Self::All(parts) => parts.iter().all(|part| part.is_met_by(accepted)),
            Self::Any(parts) => parts.iter().any(|part| part.is_met_by(accepted)),
        }
    }
}

fn tokens(text: &str) -> Vec<String> {
    let spaced = text.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    spaced.split_whitespace().map(str::to_owned).collect()
}

/// `AND` binds closer than `OR`.
fn any(tokens: &mut Peekable<impl Iterator<Item = String>>) -> Result<Expression, String> {
    chain(tokens, "OR", all, Expression::Any)
}

fn all(tokens: &mut Peekable<impl Iterator<Item = String>>) -> Result<Expression, String> {
    chain(tokens, "AND", one, Expression::All)
}

fn chain<T: Iterator<Item = String>>(
    tokens: &mut Peekable<T>,
    word: &str,
    part: fn(&mut Peekable<T>) -> Result<Expression, String>,
    join: fn(Vec<Expression>) -> Expression,
) -> Result<Expression, String> {
    let first = part(tokens)?;
    let mut parts = vec![first];
    while tokens.next_if(|token| token.eq_ignore_ascii_case(word)).is_some() {
        parts.push(part(tokens)?);
    }
    Ok(if parts.len() == 1 { parts.remove(0) } else { join(parts) })
}

fn one<T: Iterator<Item = String>>(tokens: &mut Peekable<T>) -> Result<Expression, String> {
    let token = tokens.next().ok_or("a licence is missing at the end")?;
    match token.as_str() {
        "(" => {
            let inner = any(tokens)?;
            match tokens.next().as_deref() {
                Some(")") => Ok(inner),
                _ => Err("a bracket is not closed".to_owned()),
            }
        }
        ")" | "AND" | "OR" | "WITH" => Err(format!("`{token}` stands where a licence has to")),
        _ if tokens.next_if(|next| next == "WITH").is_some() => {
            let exception = tokens.next().ok_or("an exception is missing after WITH")?;
            Ok(Expression::Licence(format!("{token} WITH {exception}")))
        }
        _ => Ok(Expression::Licence(token)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, met: bool) {
        let accepted = |licence: &str| {
            matches!(licence, "MIT" | "Apache-2.0" | "ISC" | "Apache-2.0 WITH LLVM-exception")
        };
        assert_eq!(Expression::parse(text).unwrap().is_met_by(&accepted), met, "{text}");
    }

    #[test]
    fn one_of_an_or_is_enough_and_an_and_wants_all() {
        check("MIT", true);
        check("GPL-3.0-only", false);
        check("GPL-3.0-only OR MIT", true);
        check("Unlicense/MIT", true);
        check("Apache-2.0 AND ISC", true);
        check("Apache-2.0 AND OpenSSL", false);
    }

    #[test]
    fn and_binds_closer_than_or() {
        check("MIT OR Apache-2.0 AND GPL-3.0-only", true);
        check("(MIT OR Apache-2.0) AND GPL-3.0-only", false);
        check("(MIT OR Apache-2.0) AND ISC", true);
    }

    #[test]
    fn an_exception_belongs_to_its_licence() {
        check("Apache-2.0 WITH LLVM-exception OR GPL-2.0-only", true);
        check("GPL-2.0-only WITH Classpath-exception-2.0", false);
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for text in ["", "MIT OR", "(MIT", "MIT Apache-2.0", "AND MIT", "MIT)"] {
            assert!(Expression::parse(text).is_err(), "{text}");
        }
    }
}
