//! Makes the core's decisions durable: the Store trait and SQLite behind it.
