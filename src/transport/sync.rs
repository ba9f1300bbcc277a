//! The locks and atomics of streams. With the feature `model` they are those of `shuttle`, which tries the orders in which threads may
//! pass them: see `stream/model.rs`.

#[cfg(not(feature = "model"))]
pub(crate) use parking_lot::Mutex;
#[cfg(not(feature = "model"))]
pub(crate) use std::sync::atomic;

#[cfg(feature = "model")]
pub(crate) use self::model::Mutex;
#[cfg(feature = "model")]
pub(crate) use shuttle::sync::atomic;

#[cfg(feature = "model")]
mod model {
    use shuttle::sync::{Mutex as Inner, MutexGuard};

    /// With the interface of `parking_lot`'s.
    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(Inner<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(Inner::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("a model ends with its first panic")
        }
    }
}
