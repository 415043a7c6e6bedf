//! Randomness seam.

use std::fmt::Debug;

use ring::rand::{SecureRandom, SystemRandom};

/// Source of random bytes: the operating system's in a node, a seeded generator in the simulator.
pub trait Random: Debug + Send {
    /// Fills `bytes`. A source that fails ends the process: no key is safe without it.
    fn fill(&mut self, bytes: &mut [u8]);
}

/// Convenience methods over [`Random::fill`].
pub trait RandomExt {
    /// Returns `N` random bytes.
    fn array<const N: usize>(&mut self) -> [u8; N];
    /// Returns a number below `bound`, which must not be 0. Slightly biased for bounds near 2^64; used for jitter, not for
    /// keys.
    fn below(&mut self, bound: u64) -> u64;
}

impl<R: Random + ?Sized> RandomExt for R {
    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    fn below(&mut self, bound: u64) -> u64 {
        u64::from_le_bytes(self.array()) % bound
    }
}

/// Random generator of the operating system.
#[derive(Debug, Default)]
pub struct System(());

impl Random for System {
    fn fill(&mut self, bytes: &mut [u8]) {
        SystemRandom::new().fill(bytes).expect("the operating system has no random bytes");
    }
}
