//! Handles of the exact port: some semaphores are made, shared, used and dropped, and handles that
//! nobody made are tried.
//!
//! ```text
//!  each 10 bytes: what to do, with which, a number
//! ```

use semlock::{Error, Kind, Name, Naming, SemLock};

use crate::driver::{Player, Target};
use crate::input::Input;

pub const TARGET: Target = Target { name: "handles", start: || Box::new(Handles { made: 0 }) };

struct Handles {
    made: u64,
}

/// One `SemLock`, and which semaphore it is over.
struct Known {
    lock: SemLock,
    semaphore: usize,
    held: i64,
}

impl Player for Handles {
    fn play(&mut self, bytes: &[u8]) -> bool {
        let mut input = Input::new(bytes);
        let mut known: Vec<Known> = Vec::new();
        // What each semaphore's value has to be, as long as somebody has it.
        let mut values: Vec<i32> = Vec::new();
        let mut used = false;
        while !input.is_empty() {
            let (what, which, number) = (input.u8(), usize::from(input.u8()), input.u64());
            let kind = if number & 1 == 0 { Kind::Semaphore } else { Kind::RecursiveMutex };
            let at = which.checked_rem(known.len());
            match (what % 8, at) {
                (0, _) if known.len() < 8 => {
                    self.made += 1;
                    let name = format!("/semlock-fuzz-{}-{}", std::process::id(), self.made);
                    let (name, value) = (Name::new(&name).unwrap(), (number % 4) as u32);
                    let lock = SemLock::create(kind, value, 3, &name, Naming::Unlink).unwrap();
                    known.push(Known { lock, semaphore: values.len(), held: 0 });
                    values.push(value.cast_signed());
                }
                (1, Some(at)) if known.len() < 8 => {
                    let handle = known[at].lock.handle();
                    let lock = SemLock::rebuild_from_handle(handle, kind, 3).unwrap();
                    let semaphore = known[at].semaphore;
                    known.push(Known { lock, semaphore, held: 0 });
                    used = true;
                }
                (2, _) => {
                    // One that is open, a little changed, or any number.
                    let near = at.map_or(0, |at| known[at].lock.handle());
                    let handle = if which < 128 {
                        near ^ (usize::try_from(number & 0xff).unwrap())
                    } else {
                        usize::try_from(number).unwrap_or(usize::MAX)
                    };
                    let owner = known.iter().find(|it| it.lock.handle() == handle);
                    match (SemLock::rebuild_from_handle(handle, kind, 3), owner) {
                        (Ok(lock), Some(owner)) => {
                            assert_eq!(lock.value(), Ok(values[owner.semaphore]));
                        }
                        (Err(error), None) => assert_eq!(error, Error::UnknownHandle(handle)),
                        (result, _) => panic!("{handle:#x}: {result:?}"),
                    }
                }
                (3, Some(at)) => drop(known.swap_remove(at)),
                (4 | 5, Some(at)) => {
                    let it = &mut known[at];
                    let again = it.lock.kind() == Kind::RecursiveMutex && it.held > 0;
                    let taken = it.lock.try_acquire().unwrap();
                    assert_eq!(taken, again || values[it.semaphore] > 0);
                    if taken {
                        it.held += 1;
                        values[it.semaphore] -= i32::from(!again);
                    }
                }
                (_, Some(at)) => {
                    let it = &mut known[at];
                    let value = values[it.semaphore];
                    let (result, gives) =
                        (it.lock.release(), it.lock.kind() == Kind::Semaphore || it.held == 1);
                    match it.lock.kind() {
                        Kind::RecursiveMutex if it.held == 0 => {
                            assert_eq!(result, Err(Error::NotOwner));
                        }
                        Kind::Semaphore if value >= 3 => {
                            assert_eq!(result, Err(Error::ReleasedTooManyTimes));
                        }
                        _ => {
                            assert_eq!(result, Ok(()));
                            it.held -= 1;
                            values[it.semaphore] += i32::from(gives);
                        }
                    }
                }
                _ => {}
            }
            for it in &known {
                assert_eq!(it.lock.value(), Ok(values[it.semaphore]));
                assert_eq!(it.lock.count(), it.held);
            }
        }
        used
    }
}
