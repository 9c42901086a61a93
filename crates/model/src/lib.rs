//! The vocabulary and the pure rules of terse.
//!
//! Nothing here does I/O, reads a clock or draws a random number: time and chance come in as arguments. Modules are
//! in reading order; [`redirect::decide`] is the heart of the product, [`code_space`] the reason why creating a link
//! needs no coordination, and [`store`] the boundary that every database implements.

#[macro_use]
mod named;

pub mod click;
pub mod click_block;
pub mod click_store;
pub mod code;
pub mod code_space;
pub mod domain;
pub mod link;
pub mod redirect;
pub mod rollup;
pub mod sketch;
pub mod stats;
pub mod store;
pub mod target;
pub mod tenant;
pub mod testsuite;
pub mod time;
mod varint;
