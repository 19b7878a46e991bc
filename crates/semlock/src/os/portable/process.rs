//! Processes, as `kill(2)` and `/proc` tell of them.

pub(crate) use super::by_number::is_dead;
pub(crate) use super::proc::{find_out, tell};
