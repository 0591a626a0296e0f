//! "Did you mean": the one known name that a misspelt one is near to.

/// What to add to a message about an unknown `name`: the nearest of `known`, or nothing.
pub(crate) fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    match nearest(name, known) {
        Some(near) => format!("; did you mean `{near}`?"),
        None => String::new(),
    }
}

/// The nearest of `known`, if it is near enough to be a slip rather than another word.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&name, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= 0.84)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// Names in backticks, for a message that lists them.
pub(crate) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        let known = ["error_rate", "status", "avg_response_time"];
        assert_eq!(nearest("eror_rate", known), Some("error_rate"));
        assert_eq!(nearest("STATUS", known), Some("status"));
        assert_eq!(nearest("bananas", known), None);
        assert_eq!(did_you_mean("statsu", known), "; did you mean `status`?");
        assert_eq!(did_you_mean("bananas", known), "");
    }
}
