//! Everything that is written against Python's C interface: the only `unsafe` of the extension.
//!
//! The types on the hot path are here. A `#[pyclass]` would be shorter, but its methods cost some
//! 15 ns a call more, which is a third of an uncontended acquire and release. All other types are
//! `#[pyclass]`es, beside this folder.
//!
//! ```text
//!  the types        exact_port         semlock._multiprocessing.SemLock
//!                   locks              Lock, RLock, Semaphore, BoundedSemaphore, and their SemLock
//!                   condition, event   Condition, Event
//!                   channel            what semlock's queues stand on
//!                   connection         messages of `multiprocessing`'s connections
//!  what they share  objects            how instances of the shared backend's types begin and end
//!                   sharing            how they reach other processes
//!  the interface    types              making types
//!                   arguments, values  reading Python's objects, and making them
//!                   calls              calling Python
//!                   class_names        how messages call a class
//!                   descriptors        descriptors by their numbers
//!                   docs               docstrings of the public classes
//!                   errors             raising exceptions
//!                   waits              waiting while detached from the interpreter
//!                   interpreter        what depends on the interpreter
//!                   windows            what only Windows has
//! ```
//!
//! "Exception set" in a comment means: the function has set a Python exception, and says so by
//! null, `None`, or false.
//!
//! # Safety
//! Every function in the types' tables of methods and slots relies on what Python promises to those
//! it calls through them:
//!
//! * it runs attached to the interpreter (with the GIL, where there is one), which is what
//!   "attached" in the comments means; all functions of this folder are for attached threads;
//! * `slf` is an instance of the type whose table it is, or of a subclass, and begins as that
//!   type's instances do;
//! * argument pointers are valid for the call, and `args` has as many as it says.
//!
//! None of them may unwind into Python, so none panics. None uses `PyErr`, or anything else of
//! `pyo3` that owns references: `pyo3` does not know that a thread is attached unless it has
//! attached the thread itself, and would put off releasing the references for ever. They set
//! exceptions as C does. (In `#[pymethods]` this is no problem: there `pyo3` attaches.)

// Not every system has the classes that use all of these.
#[cfg_attr(not(unix), allow(dead_code))]
pub(crate) mod arguments;
#[cfg(unix)]
mod buffers;
#[cfg_attr(not(unix), allow(dead_code))]
pub(crate) mod calls;
#[cfg(unix)]
pub(crate) mod channel;
#[cfg_attr(not(unix), allow(dead_code))]
mod class_names;
#[cfg(unix)]
pub(crate) mod condition;
#[cfg(unix)]
pub(crate) mod connection;
#[cfg(unix)]
pub(crate) mod descriptors;
#[cfg(unix)]
mod docs;
#[cfg_attr(not(unix), allow(dead_code))]
pub(crate) mod errors;
#[cfg(unix)]
pub(crate) mod event;
pub(crate) mod exact_port;
pub(crate) mod interpreter;
#[cfg(unix)]
pub(crate) mod locks;
#[cfg(unix)]
pub(crate) mod objects;
#[cfg(unix)]
pub(crate) mod sharing;
#[cfg_attr(not(unix), allow(dead_code))]
mod types;
#[cfg_attr(not(unix), allow(dead_code))]
mod values;
pub(crate) mod waits;
#[cfg(windows)]
pub(crate) mod windows;
