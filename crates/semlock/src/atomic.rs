//! The one place that atomics come from, so that a model checker can take std's place.

pub(crate) use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
