//! The server's front door: a real server on a real model of 260 thousand weights, asked over real sockets.
#![allow(clippy::unwrap_used)]

mod abuse;
mod answers;
mod batches;
mod defaults;
mod draw;
mod gate;
mod life;
mod load;
mod support;
mod tasks;
mod tls;
mod watch;
