//! What the interpreter's library exports on Windows, and `pyo3` does not name.
//!
//! It looks in the library of this very interpreter, whatever its name is (`python311.dll`,
//! `python313t.dll`, `python311_d.dll`, `libpython3.11.dll`): another library of Python that is
//! loaded as well would be another interpreter.

use std::ffi::{c_int, c_void};
use std::mem::transmute;
use std::os::windows::io::BorrowedHandle;
use std::ptr;
use std::sync::OnceLock;

use pyo3::ffi::{self, PyObject};
use windows_sys::Win32::System::LibraryLoader::{
    GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS, GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT,
    GetModuleHandleExW, GetProcAddress,
};

type Exported = unsafe extern "system" fn() -> isize;

#[derive(Clone, Copy)]
pub(crate) struct Interpreter {
    /// `PyErr_SetFromWindowsErr`, of the stable interface.
    set_error: Option<unsafe extern "C" fn(c_int) -> *mut PyObject>,
    /// Which thread handles signals, and the event that Ctrl-C sets: not of the stable interface.
    signals: Option<(unsafe extern "C" fn() -> c_int, unsafe extern "C" fn() -> *mut c_void)>,
}

impl Interpreter {
    pub(crate) fn find() -> Self {
        static FOUND: OnceLock<Interpreter> = OnceLock::new();
        *FOUND.get_or_init(|| {
            let mut module = ptr::null_mut();
            let flags = GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS
                | GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT;
            // SAFETY: the address of text in the library, which is only looked up, and a place for
            // a handle. The library stays loaded, because it is the interpreter.
            let found =
                unsafe { GetModuleHandleExW(flags, ffi::Py_GetVersion().cast(), &raw mut module) };
            let exported = |name: &std::ffi::CStr| {
                // SAFETY: the module's handle, and a C string.
                (found != 0).then(|| unsafe { GetProcAddress(module, name.as_ptr().cast()) })?
            };
            let signals = exported(c"_PyOS_IsMainThread").zip(exported(c"_PyOS_SigintEvent"));
            // SAFETY: wherever functions of these names exist they have these signatures.
            unsafe {
                Self {
                    set_error: exported(c"PyErr_SetFromWindowsErr")
                        .map(|it| transmute::<Exported, _>(it)),
                    signals: signals.map(|(main, event)| {
                        (transmute::<Exported, _>(main), transmute::<Exported, _>(event))
                    }),
                }
            }
        })
    }

    /// Sets the `OSError` of an error number of the system; false if that is not possible.
    pub(crate) fn set_error(self, number: c_int) -> bool {
        // SAFETY: attached.
        self.set_error.map(|set| unsafe { set(number) }).is_some()
    }

    /// The event that Ctrl-C sets; `None` in threads that do not handle signals.
    pub(crate) fn sigint_event(self) -> Option<BorrowedHandle<'static>> {
        let (is_main_thread, event) = self.signals?;
        // SAFETY: attached.
        if unsafe { is_main_thread() } == 0 {
            return None;
        }
        // SAFETY: attached.
        let event = unsafe { event() };
        // SAFETY: an event that the interpreter keeps as long as it runs.
        (!event.is_null()).then(|| unsafe { BorrowedHandle::borrow_raw(event) })
    }
}
