//! Tests of the whole server, through the doors its users have.

fn main() {}
