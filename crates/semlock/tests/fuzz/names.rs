//! Names of semaphores, with the numbers that belong to them.
//!
//! ```text
//!  byte 0  kind   1  keeps its name   2  greatest value (4)   6  value (4)   10  the name
//! ```

use rustix::io::Errno;
use semlock::{Error, Kind, Name, Naming, SEM_VALUE_MAX, SemLock, unlink};

use crate::driver::{Player, Target};
use crate::input::Input;

pub const TARGET: Target = Target { name: "names", start: || Box::new(Names) };

struct Names;

/// What the operating system may say of a name.
fn is_refusal(error: Error) -> bool {
    let said =
        |errno: Errno| matches!(error, Error::Os { errno: it, .. } if it == errno.raw_os_error());
    [Errno::INVAL, Errno::NAMETOOLONG, Errno::NOENT, Errno::EXIST, Errno::ACCESS, Errno::ISDIR]
        .into_iter()
        .any(said)
}

impl Player for Names {
    fn play(&mut self, bytes: &[u8]) -> bool {
        let mut input = Input::new(bytes);
        let kind = [Kind::RecursiveMutex, Kind::Semaphore][usize::from(input.u8() & 1)];
        let naming = [Naming::Keep, Naming::Unlink][usize::from(input.u8() & 1)];
        let (maxvalue, value) = (input.u32().cast_signed(), input.u32());
        let text = String::from_utf8_lossy(input.rest());
        let name = match Name::new(&text) {
            Ok(name) => name,
            Err(error) => {
                assert_eq!((error, text.contains('\0')), (Error::NulInName, true));
                return false;
            }
        };
        let lock = match SemLock::create(kind, value, maxvalue, &name, naming) {
            Ok(lock) => lock,
            Err(error) => {
                assert!(is_refusal(error), "{text:?}: {error:?}");
                return false;
            }
        };
        assert!(value <= SEM_VALUE_MAX.cast_unsigned());
        assert_eq!(lock.value(), Ok(value.cast_signed()));
        let other = SemLock::rebuild(kind, maxvalue, &name);
        match naming {
            Naming::Keep => {
                assert_eq!(lock.name(), Some(&name));
                assert_eq!(other.unwrap().value(), Ok(value.cast_signed()));
                // A name that is taken is nobody else's.
                assert!(SemLock::create(kind, 1, 1, &name, naming).is_err());
                unlink(&name).unwrap();
            }
            Naming::Unlink => assert!(is_refusal(other.unwrap_err())),
        }
        assert!(is_refusal(unlink(&name).unwrap_err()));
        let taken = lock.try_acquire().unwrap();
        assert_eq!(taken, value > 0);
        if taken {
            let released = lock.release();
            let is_full = kind == Kind::Semaphore && value.cast_signed() > maxvalue;
            let expected = if is_full { Err(Error::ReleasedTooManyTimes) } else { Ok(()) };
            assert_eq!(released, expected);
        }
        true
    }
}
