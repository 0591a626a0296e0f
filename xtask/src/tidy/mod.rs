//! `tidy`: the rules of the house that no compiler knows.
//!
//! Each rule is a function from what was read (metadata, file texts) to the list of what is
//! wrong, so that a rule is tested on a house made up for it. Everything wrong is told at once.

mod documents;
mod duplicates;
mod licences;
mod manifests;
mod map;
mod sources;
mod spdx;
mod words;

use anyhow::{Result, bail};

use crate::expect_no_arguments;
use crate::terminal::say;
use crate::workspace::{self, Depth, Metadata};

/// What is wrong, each a sentence that says where, what, and what to do.
type Complaints = Vec<String>;

/// `cargo xtask tidy`, or `cargo xtask tidy words` for its lists of names and comments.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    if let [first, rest @ ..] = arguments
        && first == "words"
    {
        return words::run_words(rest);
    }
    expect_no_arguments("tidy", arguments)?;
    let root = workspace::root()?;
    let metadata = Metadata::load(Depth::Everything)?;
    // Never shipped, but what the tests run has its licences all the same.
    let peer = Metadata::load_of(&root.join("tests/peers/rmcp-server"), Depth::Everything)?;
    let all = [metadata.foreign(), peer.foreign()].concat();
    let files = sources::read(&root)?;

    let rules: [(&str, Complaints); 7] = [
        ("crate map", map::check(&metadata.members())),
        ("manifests", manifests::check(&metadata, &root)?),
        ("licences", licences::check(&all, &root)?),
        ("duplicates", duplicates::check(&metadata.foreign(), &root)?),
        ("sources", sources::check(&files, &sources::private_paths(&root))),
        ("documents", documents::check(&files, &metadata.members())),
        ("words", words::check_words(&files, &root)?),
    ];
    let mut wrong = 0;
    for (rule, complaints) in &rules {
        wrong += complaints.len();
        say(format_args!("    {rule}: {}", if complaints.is_empty() { "ok" } else { "NOT ok" }));
        for complaint in complaints {
            say(format_args!("      {complaint}"));
        }
    }
    match wrong {
        0 => Ok(()),
        1 => bail!("1 thing is not tidy, see above"),
        many => bail!("{many} things are not tidy, see above"),
    }
}
