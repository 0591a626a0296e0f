//! Places where a test may have the monitor die, as by `kill -9`: between deciding, sending and
//! recording.
//!
//! Only builds with debug assertions know them, and only where `MCPMON_FAILPOINT_FILE` names a
//! file: whoever passes a point whose name stands in it takes the process along, with no
//! destructor run and nothing flushed. The file is read at each passing, so that a test can arm a
//! monitor that runs already. In other builds passing a point is no code at all.

/// Where messages can be cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failpoint {
    /// A change of lists was found, and is not stored.
    BeforeStore,
    /// A change of lists is stored, and not reported.
    AfterStore,
    /// Decided, and not written down.
    BeforeCommit,
    /// Written down, and known to nobody.
    AfterCommit,
    /// Taken up by its handler's task.
    BeforeSend,
    /// Taken by the far side, whose answer is known.
    AfterSend,
    /// Struck out.
    AfterSettle,
}

impl Failpoint {
    #[cfg(debug_assertions)]
    fn name(self) -> &'static str {
        match self {
            Self::BeforeStore => "before_store",
            Self::AfterStore => "after_store",
            Self::BeforeCommit => "before_commit",
            Self::AfterCommit => "after_commit",
            Self::BeforeSend => "before_send",
            Self::AfterSend => "after_send",
            Self::AfterSettle => "after_settle",
        }
    }

    /// Goes on, or not at all.
    #[cfg(debug_assertions)]
    pub(crate) fn pass(self) {
        use std::path::PathBuf;
        use std::sync::OnceLock;

        static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
        let file = FILE.get_or_init(|| std::env::var_os("MCPMON_FAILPOINT_FILE").map(Into::into));
        let armed = file.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
        if armed.is_some_and(|armed| armed.lines().any(|line| line == self.name())) {
            std::process::abort();
        }
    }

    #[cfg(not(debug_assertions))]
    #[inline(always)]
    pub(crate) fn pass(self) {}
}
