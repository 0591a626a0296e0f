//! Which names and which comments break the rules for names and prose in `docs/architecture.md`.
//!
//! The rules there are for people and leave room; these functions are the part that a program
//! can count without a dispute about each hit.

/// One word that a method may have as its whole name, because every reader of Rust knows what it
/// means. A free function has no receiver to complete the sentence, so none of these excuses it.
const CONVENTIONAL_METHODS: &[&str] = &[
    // Constructors and builders (API guidelines, C-CTOR and C-BUILDER).
    "bind", "build", "builder", "connect", "new", "open",
    // Methods of traits of std, which a type may also have as its own.
    "add", "borrow", "clone", "cmp", "default", "deref", "div", "drop", "eq", "extend", "flush",
    "fmt", "from", "hash", "index", "into", "mul", "ne", "neg", "next", "not", "poll", "product",
    "read", "rem", "seek", "sub", "sum", "write",
    // What a collection or an iterator of ours shares with those of std (C-ITER, C-GETTER).
    "clear", "contains", "drain", "first", "get", "insert", "iter", "keys", "last", "len", "max",
    "min", "pop", "push", "remove", "retain", "values",
    // Accessors of std (`Child::id`, `io::Error::kind`, `Thread::name`); a trait has no fields
    // they could be named after.
    "id", "kind", "name", // The method of the port `Probe`.
    "ask",
];

/// Names that end like a participle and are none.
const NO_PARTICIPLES: &[&str] = &[
    "broaden", "children", "embed", "even", "exceed", "feed", "flatten", "gen", "happen", "len",
    "lengthen", "listen", "loosen", "need", "open", "proceed", "screen", "seed", "shed", "shorten",
    "speed", "succeed", "then", "tighten", "token", "when", "widen",
];

/// Participles that end neither in `-ed` nor in `-en`. Those that are also an infinitive (`cut`,
/// `put`, `read`, `run`, `set`) are left out: they may be meant as a verb.
const IRREGULAR_PARTICIPLES: &[&str] = &[
    "begun",
    "bound",
    "bought",
    "brought",
    "built",
    "caught",
    "done",
    "drawn",
    "felt",
    "found",
    "gone",
    "grown",
    "heard",
    "held",
    "hung",
    "kept",
    "known",
    "led",
    "left",
    "lent",
    "lost",
    "made",
    "meant",
    "met",
    "paid",
    "said",
    "sent",
    "shown",
    "spent",
    "stood",
    "stuck",
    "swept",
    "taught",
    "thought",
    "thrown",
    "told",
    "torn",
    "understood",
    "withdrawn",
    "won",
    "worn",
];

/// Verbs of people, which code and files cannot do.
const SPEECH_VERBS: &[&str] = &["said", "say", "says", "tell", "tells", "told"];

/// Returns whether a function name is a single word.
pub(super) fn is_one_word(name: &str) -> bool {
    split_words(name).count() == 1
}

/// Returns whether a method may keep this name although it is a single word.
pub(super) fn is_conventional_method(name: &str) -> bool {
    CONVENTIONAL_METHODS.contains(&name)
}

/// Returns whether a function name is a participle and nothing else.
pub(super) fn is_bare_participle(name: &str) -> bool {
    let is_regular = name.ends_with("ed") || name.ends_with("en");
    is_one_word(name)
        && !NO_PARTICIPLES.contains(&name)
        && (is_regular || IRREGULAR_PARTICIPLES.contains(&name))
}

/// Returns whether a line of a comment has a verb of speech as a whole word.
pub(super) fn has_speech_verb(comment: &str) -> bool {
    comment
        .split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .any(|word| SPEECH_VERBS.iter().any(|verb| word.eq_ignore_ascii_case(verb)))
}

/// Returns the words of an identifier, each between underscores: the words `looked_at` are in
/// `is_looked_at` and in `LookedAt` because `_looked_at_` is in `_is_looked_at_`.
pub(super) fn delimit_words(identifier: &str) -> String {
    let words: Vec<String> = split_words(identifier).collect();
    format!("_{}_", words.join("_"))
}

/// Splits `snake_case`, `SCREAMING_CASE` and `CamelCase` into words of lower case.
fn split_words(identifier: &str) -> impl Iterator<Item = String> {
    let is_camel = identifier.contains(char::is_lowercase);
    let mut words = vec![String::new()];
    for c in identifier.chars() {
        if c == '_' || (is_camel && c.is_uppercase()) {
            words.push(String::new());
        }
        if let (Some(word), true) = (words.last_mut(), c != '_') {
            word.extend(c.to_lowercase());
        }
    }
    words.into_iter().filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_all(is_hit: impl Fn(&str) -> bool, hits: &[&str], others: &[&str]) {
        for name in hits {
            assert!(is_hit(name), "{name} is no hit");
        }
        for name in others {
            assert!(!is_hit(name), "{name} is a hit");
        }
    }

    #[test]
    fn a_name_without_an_object_is_one_word() {
        check_all(is_one_word, &["check", "run", "_run", "x2"], &["run_tests", "as_str"]);
    }

    #[test]
    fn participles_are_known_by_ending_or_by_list() {
        check_all(
            is_bare_participle,
            &["observed", "told", "taken", "fed", "kept", "hidden"],
            &["feed", "need", "open", "len", "token", "read", "set", "was_told", "check"],
        );
    }

    #[test]
    fn speech_is_found_as_a_whole_word_in_any_case() {
        check_all(
            has_speech_verb,
            &["// What it says.", "/// Told once.", "//! (say, a line)", "* tells;"],
            &["// An essay.", "// storytelling", "// `tell_room` is called", "// untold"],
        );
    }

    #[test]
    fn words_are_the_same_in_every_case() {
        for (identifier, words) in [
            ("told", "_told_"),
            ("is_told", "_is_told_"),
            ("ToldOnce", "_told_once_"),
            ("TOLD_AT", "_told_at_"),
            ("t_old", "_t_old_"),
            ("_", "__"),
        ] {
            assert_eq!(delimit_words(identifier), words, "{identifier}");
        }
    }
}
