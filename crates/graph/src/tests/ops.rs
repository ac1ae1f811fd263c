//! Operations one by one.
