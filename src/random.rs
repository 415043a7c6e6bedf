//! The randomness seam.

use std::fmt::Debug;

use ring::rand::{SecureRandom, SystemRandom};

/// A source of random bytes: the system's in a node, a seeded generator in the simulator.
pub trait Random: Debug + Send {
    /// Fills `bytes`. A source that fails ends the process: nothing safe can be done without it.
    fn fill(&mut self, bytes: &mut [u8]);
}

/// Conveniences over [`Random::fill`].
pub trait RandomExt {
    /// `N` random bytes.
    fn array<const N: usize>(&mut self) -> [u8; N];
    /// A number below `bound`, which must not be 0. Slightly biased for bounds near 2^64; used for jitter, not keys.
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

/// The operating system's generator.
#[derive(Debug, Default)]
pub struct System(());

impl Random for System {
    fn fill(&mut self, bytes: &mut [u8]) {
        SystemRandom::new().fill(bytes).expect("the operating system has no random bytes");
    }
}
