//! Breaks a rule of the protocol, or weakens a memory ordering, to see whether a test fails.
//! `cargo xtask mutants` tries all of them, one at a time.
//!
//! A build with `--cfg semlock_mutation` reads from the environment what to break:
//!
//! ```text
//! SEMLOCK_MUTATION=permit/a-failed-free-is-tried-again
//!     breaks this rule; commas separate several
//! SEMLOCK_MUTATION=word/eventcount.rs:LINE:COLUMN/success/AcqRel
//!     gives this access of a model this ordering
//! SEMLOCK_MUTATION_SEEN=FILE
//!     appends to the file each rule and each access that the test reaches
//! ```
//!
//! A build without that flag keeps all rules, and contains none of this code.

#[cfg(all(loom, semlock_mutation))]
pub(crate) use self::broken::ordering;
#[cfg(semlock_mutation)]
pub(crate) use self::broken::rule;

/// Whether the rule of this name is kept.
#[cfg(not(semlock_mutation))]
#[inline(always)]
#[allow(clippy::inline_always)] // it compiles to nothing
pub(crate) const fn rule(_name: &str) -> bool {
    true
}

#[cfg(semlock_mutation)]
mod broken {
    use std::collections::HashSet;
    use std::fs::{File, OpenOptions};
    use std::io::Write;
    #[cfg(loom)]
    use std::sync::atomic::Ordering;
    use std::sync::{LazyLock, Mutex, PoisonError};

    static WANTED: LazyLock<Option<String>> =
        LazyLock::new(|| std::env::var("SEMLOCK_MUTATION").ok());

    static SEEN: LazyLock<Option<Mutex<(File, HashSet<String>)>>> = LazyLock::new(|| {
        let path = std::env::var_os("SEMLOCK_MUTATION_SEEN")?;
        let file = OpenOptions::new().append(true).create(true).open(path);
        Some(Mutex::new((file.expect("the file can be written"), HashSet::new())))
    });

    fn see(name: impl FnOnce() -> String) {
        let Some(seen) = &*SEEN else { return };
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let name = name();
        if !seen.1.contains(&name) {
            // Written at once, because a test may kill this process at any moment.
            seen.0.write_all(format!("{name}\n").as_bytes()).expect("the file can be written");
            seen.1.insert(name);
        }
    }

    /// Whether the rule of this name is kept.
    pub(crate) fn rule(name: &str) -> bool {
        see(|| name.to_owned());
        WANTED.as_deref().is_none_or(|wanted| wanted.split(',').all(|one| one != name))
    }

    /// The ordering for the access that the caller's caller makes. An access with two orderings
    /// asks for each; `part` says for which.
    #[cfg(loom)]
    #[track_caller]
    pub(crate) fn ordering(part: &'static str, order: Ordering) -> Ordering {
        // loom's orderings are std's.
        use Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};

        /// File, line, column, and the rest. Line and column come first in the comparison, because
        /// nearly all accesses differ in them.
        type Access = (String, u32, u32, String);

        static ACCESS: LazyLock<Option<Access>> = LazyLock::new(|| {
            let (place, what) = WANTED.as_deref()?.split_once(".rs:")?;
            let (numbers, what) = what.split_once('/')?;
            let (line, column) = numbers.split_once(':')?;
            let number = |digits: &str| digits.parse().expect("a line and a column");
            Some((format!("{place}.rs"), number(line), number(column), what.to_owned()))
        });

        let caller = std::panic::Location::caller();
        see(|| {
            let file = caller.file().rsplit_once("src/").map_or(caller.file(), |(_, file)| file);
            format!("{file}:{}:{}/{part}", caller.line(), caller.column())
        });
        let Some((file, line, column, what)) = &*ACCESS else { return order };
        if (*line, *column) != (caller.line(), caller.column()) || !caller.file().ends_with(file) {
            return order;
        }
        let Some((weakened, to)) = what.split_once('/') else { return order };
        if weakened != part {
            return order;
        }
        let all = [Relaxed, Acquire, Release, AcqRel, SeqCst];
        all.into_iter().find(|known| format!("{known:?}") == to).expect("a memory ordering")
    }
}
