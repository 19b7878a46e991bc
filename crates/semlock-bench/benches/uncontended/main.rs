//! What a lock between processes costs when nobody else wants it, beside what the system offers.

#[cfg(target_os = "linux")]
mod measures;
#[cfg(target_os = "linux")]
mod rivals;

#[cfg(target_os = "linux")]
criterion::criterion_main!(measures::benches);

/// Not all of its rivals are there.
#[cfg(not(target_os = "linux"))]
fn main() {}
