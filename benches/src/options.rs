//! What a benchmark is told: `--name NUMBER` pairs.

use crate::Failure;

/// Reads numbers over their defaults.
///
/// # Errors
///
/// For a name that is not among them, and what is no number above 0.
pub fn numbers<const N: usize>(
    words: impl IntoIterator<Item = String>,
    mut defaults: [(&str, usize); N],
) -> Result<[usize; N], Failure> {
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let name = word.strip_prefix("--").unwrap_or_default();
        let known = defaults.iter_mut().find(|(known, _)| *known == name);
        let (_, number) = known.ok_or_else(|| format!("unknown argument `{word}`"))?;
        let value = words.next().and_then(|value| value.parse().ok()).filter(|value| *value > 0);
        *number = value.ok_or_else(|| format!("`{word}` wants a number above 0"))?;
    }
    Ok(defaults.map(|(_, number)| number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_replace_their_defaults() {
        let read = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            numbers(words, [("services", 7), ("rounds", 3)]).map_err(|error| error.to_string())
        };
        assert_eq!(read(&["--rounds", "5"]), Ok([7, 5]));
        assert_eq!(read(&["--turns", "5"]), Err("unknown argument `--turns`".to_owned()));
        assert!(read(&["--rounds", "0"]).is_err() && read(&["--rounds"]).is_err());
    }
}
