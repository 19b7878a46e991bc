//! Processes, as `kill(2)` and `/proc` tell of them.

pub(crate) use super::by_number::Asked;
pub(crate) use super::proc::{find_out, tell};
