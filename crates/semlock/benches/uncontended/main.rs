//! What a lock between processes costs when nobody else wants it, beside what the system offers.

#[cfg(all(target_os = "linux", not(loom)))]
mod measures;
#[cfg(all(target_os = "linux", not(loom)))]
mod rivals;

#[cfg(all(target_os = "linux", not(loom)))]
criterion::criterion_main!(measures::benches);

/// The backend `shared` is not there to be measured.
#[cfg(not(all(target_os = "linux", not(loom))))]
fn main() {}
