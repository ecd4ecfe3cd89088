//! What one durable put takes at least: an echo's round trip, and an append that the device has before it is answered.

/// Microseconds, on the processors and the file system of a run.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Roofline(pub(crate) f64);

/// The median of both together, if this program can measure them.
pub(crate) const fn one_put() -> Option<Roofline> {
    None
}
