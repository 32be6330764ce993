//! The HTTP edge: takes a notification, makes it durable, answers, publishes.
