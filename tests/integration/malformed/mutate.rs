//! Random changes of valid input, from a seed.

/// A SplitMix64 generator with the mutations of a fuzzer.
pub(crate) struct Mutator {
    state: u64,
}

/// Boundary values of the formats.
const EDGES: [u8; 8] = [0x00, 0x01, 0x7f, 0x80, 0xff, b'"', b'{', b'['];
/// Maximum size of an input in bytes.
const LONGEST_BYTES: usize = 64 << 10;

impl Mutator {
    pub(crate) fn new(seed: u64) -> Mutator {
        Mutator { state: seed }
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ z >> 31) % bound.max(1) as u64).expect("below a usize")
    }

    /// Returns one of `corpus` with one to four changes.
    pub(crate) fn mutate(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = corpus[self.below(corpus.len())].clone();
        for _ in 0..=self.below(4) {
            self.change(&mut bytes, corpus);
        }
        bytes.truncate(LONGEST_BYTES);
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let at = self.below(bytes.len() + 1);
        let end = at + self.below(bytes.len() - at + 1);
        match self.below(7) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => bytes.insert(at, EDGES[self.below(EDGES.len())]),
            3 => bytes.extend_from_within(at..end),
            4 => {
                let other = &corpus[self.below(corpus.len())];
                let from = self.below(other.len() + 1);
                bytes.splice(at..end, other[from..].iter().copied());
            }
            _ if at == bytes.len() => {}
            5 => bytes[at] = EDGES[self.below(EDGES.len())],
            _ => bytes[at] ^= 1 << self.below(8),
        }
    }
}
