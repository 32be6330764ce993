//! Brokers and database: orders that block, carried out one after the other, away from the clock
//! of the schedule.

use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result};
use tokio::sync::oneshot;

/// Something to do with a server.
pub type Order<S> = Box<dyn FnOnce(&S) -> Result<()> + Send>;

/// A server and the thread that gives it its orders.
pub struct Orders<S> {
    sender: mpsc::Sender<(Order<S>, oneshot::Sender<Result<()>>)>,
}

impl<S: Send + 'static> Orders<S> {
    /// Takes orders for a server.
    pub fn to(server: S) -> Self {
        let (sender, orders) = mpsc::channel::<(Order<S>, oneshot::Sender<Result<()>>)>();
        thread::spawn(move || {
            for (order, done) in orders {
                let _ = done.send(order(&server));
            }
        });
        Self { sender }
    }

    /// Gives an order; it is carried out after those before it.
    pub fn give(&self, order: impl FnOnce(&S) -> Result<()> + Send + 'static) -> Given {
        let (done, given) = oneshot::channel();
        // Without the thread the answer fails.
        let _ = self.sender.send((Box::new(order), done));
        Given(given)
    }
}

/// An order that was given.
pub struct Given(oneshot::Receiver<Result<()>>);

impl Given {
    /// Waits until it is carried out.
    pub async fn done(self) -> Result<()> {
        self.0.await.context("the thread of a server has ended")?
    }
}
