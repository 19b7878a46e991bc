//! Rules of the protocol that can be taken out one at a time, to see that some test then fails.
//!
//! Built with `--cfg semlock_mutation`, the rule that `SEMLOCK_MUTATION` names is not kept. Built without, all
//! are, and nothing of this is left.

/// Whether the rule of this name is kept.
#[cfg(not(semlock_mutation))]
#[inline(always)]
#[allow(clippy::inline_always)] // it is nothing
pub(crate) const fn rule(_name: &str) -> bool {
    true
}

/// Whether the rule of this name is kept.
#[cfg(semlock_mutation)]
pub(crate) fn rule(name: &str) -> bool {
    static TAKEN_OUT: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let taken_out = TAKEN_OUT.get_or_init(|| std::env::var("SEMLOCK_MUTATION").ok());
    taken_out.as_deref() != Some(name)
}
