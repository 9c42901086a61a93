//! What a generated code costs: our FF1 for base 62 beside the general implementation.

use aes::Aes128;
use fpe::ff1::{FF1, FlexibleNumeralString};
use std::hint::black_box;
use std::time::Instant;
use terse_model::code_space::{CodeSpace, Generator, LinkId};

const KEY: [u8; 16] = *b"a key for tests!";

fn main() {
    let space = CodeSpace::new(Generator::DEFAULT, &KEY);
    let general = FF1::<Aes128>::new(&KEY, 62).expect("62 is a radix");
    let codes: Vec<_> = (0..1000).map(|id| space.encode(LinkId(id))).collect();
    per_call("encode, terse", 1_000_000, |n| {
        black_box(space.encode(LinkId(n)));
    });
    per_call("decode, terse", 1_000_000, |n| {
        black_box(space.decode(codes[n as usize % 1000].as_str()));
    });
    per_call("encrypt, fpe", 50_000, |n| {
        let digits: Vec<u16> = (0..7).rev().map(|place| (n / 62u64.pow(place) % 62) as u16).collect();
        let _ = black_box(general.encrypt(&[], &FlexibleNumeralString::from(digits)));
    });
}

fn per_call(name: &str, count: u64, mut call: impl FnMut(u64)) {
    let began = Instant::now();
    (0..count).for_each(&mut call);
    println!("{name:<16} {:>8.3} µs", began.elapsed().as_secs_f64() * 1e6 / count as f64);
}
