//! The dictionary of `docs/architecture.md`: for every name that is still to go, what replaces it.
//!
//! The table is for people; it is compared with the counts so that it neither forgets a name nor
//! keeps one that is gone.

use std::collections::{BTreeMap, BTreeSet};

use super::baseline::BASELINE_PATH;
use super::scan::Subject;
use crate::tidy::Complaints;

/// The page with the table.
pub(super) const PAGE_PATH: &str = "docs/architecture.md";

/// The heading the table stands under, with its marks.
const HEADING: &str = "### Dictionary";

/// What the second column has for a word that is retired in every name of every crate; else it has
/// the name of one crate without `mcpmon-`.
const ANYWHERE: &str = "anywhere";

/// Compares the table with how often each retired name is found.
pub(super) fn check_dictionary(page: &str, retired: &BTreeMap<Subject, usize>) -> Complaints {
    let explained = read_dictionary(page);
    if explained.is_empty() {
        return vec![format!("{PAGE_PATH} has no table under `{HEADING}`")];
    }
    let without_replacement = retired
        .iter()
        .filter(|(subject, found)| **found > 0 && !explained.contains(subject))
        .map(|(subject, _)| {
            format!("the dictionary of {PAGE_PATH} has no replacement for: {subject}")
        });
    let gone = explained.iter().filter(|subject| retired.get(subject) == Some(&0)).map(|subject| {
        format!("none is left, so remove it from the dictionary of {PAGE_PATH}: {subject}")
    });
    let uncounted =
        explained.iter().filter(|subject| !retired.contains_key(subject)).map(|subject| {
            format!("in the dictionary of {PAGE_PATH} and not in {BASELINE_PATH}: {subject}")
        });
    without_replacement.chain(gone).chain(uncounted).collect()
}

/// Returns everything in backticks in the first column of the table, with the place from the
/// second.
fn read_dictionary(page: &str) -> BTreeSet<Subject> {
    page.lines()
        .skip_while(|line| *line != HEADING)
        .skip(1)
        .take_while(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let mut cells = line.strip_prefix('|')?.split('|');
            Some((cells.next()?, cells.next()?.trim()))
        })
        .flat_map(|(names, place)| {
            names.split('`').skip(1).step_by(2).map(move |name| make_subject(name, place))
        })
        .collect()
}

fn make_subject(name: &str, place: &str) -> Subject {
    if place == ANYWHERE {
        Subject::RetiredWord(name.to_owned())
    } else {
        Subject::RetiredName { package: format!("mcpmon-{place}"), name: name.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
### Prose

| `never` | x |

### Dictionary

`Not` in a table.

| now | where | is | should be |
|---|---|---|---|
| `World`, `Watched` | engine | the `state` | `MonitorState` |
| `told` | anywhere | notify | `notified` |

### After

| `later` | core |
";

    /// `retired` are names with the place of the table and how often they are found.
    #[track_caller]
    fn check(page: &str, retired: &[(&str, &str, usize)], complaints: &[&str]) {
        let retired = retired
            .iter()
            .map(|(name, place, found)| (make_subject(name, place), *found))
            .collect();
        assert_eq!(check_dictionary(page, &retired), complaints);
    }

    #[test]
    fn a_table_of_what_is_still_there_is_complete() {
        let retired = [
            ("World", "engine", 1),
            ("Watched", "engine", 2),
            ("told", "anywhere", 9),
            ("gone", "anywhere", 0),
        ];
        check(PAGE, &retired, &[]);
    }

    #[test]
    fn differences_are_named_with_what_to_do() {
        let retired = [("World", "engine", 0), ("Watched", "engine", 1), ("World", "store", 2)];
        check(
            PAGE,
            &retired,
            &[
                "the dictionary of docs/architecture.md has no replacement for: mcpmon-store: \
                 declarations of the retired name `World`",
                "none is left, so remove it from the dictionary of docs/architecture.md: \
                 mcpmon-engine: declarations of the retired name `World`",
                "in the dictionary of docs/architecture.md and not in xtask/words.toml: names \
                 with the retired word `told`",
            ],
        );
    }

    #[test]
    fn a_page_without_the_table_is_an_error() {
        check("### Prose\n", &[], &["docs/architecture.md has no table under `### Dictionary`"]);
    }
}
