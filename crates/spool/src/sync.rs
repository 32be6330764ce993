//! The locks under the group commit. In the unit tests they are loom's, so that those tests try
//! every order in which threads can meet; such a test runs within `loom::model`.

#[cfg(test)]
pub(crate) use loom::{
    sync::{Condvar, Mutex, MutexGuard},
    thread_local,
};
#[cfg(not(test))]
pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard},
    thread_local,
};
